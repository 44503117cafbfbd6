"""Test-time augmentation (TTA): mean logits of several augmented views of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from striate.core.logits import main_output
from striate.core.registry import Registry

TTA = Callable[[nn.Module, Tensor], Tensor]
TTA_MODES: Registry[TTA] = Registry("test-time augmentation")


@TTA_MODES.add("plain")
def no_tta(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits of the images without test-time augmentation."""
    return main_output(model(x))


@TTA_MODES.add("flip")
def flip_tta(model: nn.Module, x: Tensor) -> Tensor:
    """Return the mean logits of each image and its mirror image.

    This takes twice the time of one forward pass (Krizhevsky et al. 2012, section 4.1).

    Shapes:
        (N, C, H, W) → (N, classes)

    Example:
        >>> x = torch.rand(2, 1, 3, 4)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> bool(torch.allclose(flip_tta(model, x), flip_tta(model, x.flip(3))))
        True
    """
    return (main_output(model(x)) + main_output(model(x.flip(3)))) / 2


@TTA_MODES.add("flip_shift")
def flip_shift_tta(model: nn.Module, x: Tensor) -> Tensor:
    """Return the mean logits of ten views: image, four one-pixel shifts, and mirrors.

    This takes ten times the time of one forward pass. Pixels that a shift leaves empty
    are filled with the nearest edge pixel. The shifts help networks that downsample
    small images early, because each view samples other pixels
    (docs/notebook/accuracy-recipes.md).

    Shapes:
        (N, C, H, W) → (N, classes)

    Example:
        >>> x = torch.rand(2, 1, 3, 4)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> flip_shift_tta(model, x).shape
        torch.Size([2, 5])
    """
    views = [x, *_shifted(x)]
    return torch.stack([flip_tta(model, view) for view in views]).mean(0)


def _shifted(x: Tensor) -> list[Tensor]:
    """Return four batches: the images shifted by a pixel in each direction."""
    height, width = x.shape[2:]
    padded = pad(x, (1, 1, 1, 1), mode="replicate")
    offsets = (0, 1), (2, 1), (1, 0), (1, 2)
    return [padded[:, :, i : i + height, j : j + width] for i, j in offsets]
