"""Feature maps: what every layer makes of one image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.hooks import capture_outputs, evaluation_mode, leaf_module_names
from striate.interpret.activations_at import forward
from striate.interpret.render import amounts, enlarge, tile

SHOWN = 32  # channels drawn of a layer
DRAWN = 48  # pixels a map is drawn high, at least
LARGEST = 64  # and at most: sixteen of them fill a laptop's page


def feature_maps(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return every layer output that has height and width, in the order they run.

    Args:
        model: Any network; left as it was.
        x: One image as the network takes it, (1, C, H, W).

    Returns:
        Dotted name to (channels, height, width); a reused layer keeps its last.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
        >>> feature_maps(model, torch.zeros(1, 1, 5, 5))["0"].shape
        torch.Size([2, 3, 3])
    """
    maps: dict[str, Tensor] = {}

    def note(name: str, output: Tensor) -> None:
        if output.ndim == 4:
            # A copy: an in-place activation behind the layer would change it.
            maps[name] = output[0].detach().float().cpu().clone()

    with (
        evaluation_mode(model),
        capture_outputs(model, leaf_module_names(model), note),
        torch.inference_mode(),
    ):
        forward(model, x)
    return maps


def map_sheet(maps: Tensor, columns: int = 16) -> np.ndarray:
    """Draw a layer's first channels side by side, each from its least to its most."""
    if max(maps.shape[1:]) > LARGEST:
        ratio = LARGEST / max(maps.shape[1:])
        height, width = (max(1, round(side * ratio)) for side in maps.shape[1:])
        maps = F.adaptive_avg_pool2d(maps, (height, width))
    planes = [enlarge(amounts(plane), DRAWN) for plane in maps[:SHOWN].numpy()]
    return tile(planes, columns)
