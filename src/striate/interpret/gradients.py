"""Gradients of a score through any forward pass, even one with `torch.no_grad`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from striate.core.errors import GeometryError


class GradientsStayOn(TorchFunctionMode):
    """Context manager: `torch.no_grad` in the network's own code has no effect.

    Many networks run a frozen backbone under `no_grad`, which saves memory in training.
    The derivative of the score still exists.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> with GradientsStayOn(), torch.no_grad():
        ...     y = x * 2
        >>> y.requires_grad
        True
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            return None
        return func(*args, **(kwargs or {}))


def turn_gradients_on() -> None:
    """Turn gradients on, also inside of `GradientsStayOn`."""
    with torch._C.DisableTorchFunction():
        torch.set_grad_enabled(True)


def gradients_of(
    score: Tensor,  # the sum of the scores of all images
    inputs: Sequence[Tensor],
    name: str,  # what the score must depend on, for the error message
    text: str = "",  # the explained class, for the error message
) -> list[Tensor]:
    """Return the gradient of a score for each input tensor.

    Raises:
        GeometryError: The score has no gradient for an input.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> gradients_of((3 * x).sum(), [x], "the image")
        [tensor([3., 3.])]
        >>> gradients_of(x.detach().sum(), [x], "the image")
        Traceback (most recent call last):
        ...
        striate.core.errors.GeometryError: the score does not depend on the image, ...
    """
    gradients: Sequence[Tensor | None] = [None]
    if score.requires_grad:
        gradients = torch.autograd.grad(score, list(inputs), allow_unused=True)
    if any(gradient is None for gradient in gradients):
        what = (
            f"the score{text and f' of {text}'} does not depend on {name}, or "
            "forward() cuts the gradient with detach() or torch.inference_mode()"
        )
        fix = "use a layer between input and output; or occlusion, without gradients"
        raise GeometryError(what, where=name, fix=fix)
    return [gradient for gradient in gradients if gradient is not None]
