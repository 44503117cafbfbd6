"""Color shift, clipping and normalization of a batch in a single pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from striate.core.preprocess_config import Preprocess


class ColorMap:
    """Compute (clip(v/255 + shift, 0, 1) − mean)/std for every pixel value v.

    Float images are (v/255 − mean)/std already.

    Each pixel row is processed as one vector of width · channels numbers, because SIMD
    instructions are inefficient on vectors of three channels.

    Example:
        >>> p = Preprocess(channels=1, height=1, width=2, mean=(0.5,), std=(0.5,))
        >>> two = torch.tensor([[[[0], [255]]]], dtype=torch.uint8)
        >>> ColorMap(p, np.array([[0.25]]), "cpu")(two).flatten().tolist()
        [-0.5, 1.0]
    """

    def __init__(
        self,
        preprocess: Preprocess,
        shifts: np.ndarray | None,
        device: torch.device | str,
    ) -> None:
        mean, std = np.array(preprocess.mean), np.array(preprocess.std)
        moved = np.zeros((1, len(mean))) if shifts is None else shifts

        def line(values: np.ndarray) -> Tensor:
            repeated = np.tile(values, preprocess.width).astype(np.float32)
            return torch.from_numpy(repeated).to(device).unsqueeze(1)

        self._clips = shifts is not None
        if preprocess.is_float:
            self._scale, self._offset = line(np.ones_like(std)[None]), line(moved / std)
        else:
            self._scale = line(1 / (255 * std)[None])
            self._offset = line((moved - mean) / std)
        self._limits = line((-mean / std)[None]), line(((1 - mean) / std)[None])
        level = np.clip(preprocess.background / 255 + moved, 0, 1)
        back = torch.from_numpy(((level - mean) / std).astype(np.float32))
        self._back = back.to(device)[:, :, None, None]

    def __call__(self, pixels: Tensor, which: slice = slice(None)) -> Tensor:
        """Return the normalized network input of the selected images.

        Shapes:
            (N, H, W, C) uint8 or float32 → (N, C, H, W) float32, channels last
        """
        count, height, width, channels = pixels.shape
        lines = pixels.reshape(count, height, width * channels)
        out = lines.mul(self._scale).add_(_some(self._offset, which))
        if self._clips:
            low, high = self._limits
            out.clamp_(low, high)
        return out.view(count, height, width, channels).permute(0, 3, 1, 2)

    def background(self, which: slice = slice(None)) -> Tensor:
        """Return the shifted, normalized background color, (N or 1, C, 1, 1)."""
        return _some(self._back, which)


def _some(values: Tensor, which: slice) -> Tensor:
    return values if len(values) == 1 else values[which]
