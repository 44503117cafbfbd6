"""Feature maps of one image: all layer outputs that have height and width."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.hooks import capture_outputs, evaluation_mode, leaf_module_names
from striate.interpret.activations_at import forward
from striate.interpret.render import enlarge, sequential_colors, tile

MAX_CHANNELS = 32  # channels drawn per layer
MIN_PIXELS = 48  # minimum height of a drawn map, in pixels
MAX_PIXELS = 64  # maximum height: sixteen maps fill the width of a page


def feature_maps(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return every layer output that has height and width, in execution order.

    Returns:
        Dotted name → (channels, height, width); the last output of a reused layer.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
        >>> feature_maps(model, torch.zeros(1, 1, 5, 5))["0"].shape
        torch.Size([2, 3, 3])
    """
    maps: dict[str, Tensor] = {}

    def note(name: str, output: Tensor) -> None:
        if output.ndim == 4:
            # A copy: an in-place activation after the layer would change it.
            maps[name] = output[0].detach().float().cpu().clone()

    with (
        evaluation_mode(model),
        capture_outputs(model, leaf_module_names(model), note),
        torch.inference_mode(),
    ):
        forward(model, x)
    return maps


def map_sheet(maps: Tensor) -> np.ndarray:
    """Draw a layer's first channels side by side, each with its own color scale."""
    if max(maps.shape[1:]) > MAX_PIXELS:
        ratio = MAX_PIXELS / max(maps.shape[1:])
        height, width = (max(1, round(side * ratio)) for side in maps.shape[1:])
        maps = F.adaptive_avg_pool2d(maps, (height, width))
    planes = [sequential_colors(plane) for plane in maps[:MAX_CHANNELS].numpy()]
    return tile([enlarge(plane, MIN_PIXELS) for plane in planes], 16)
