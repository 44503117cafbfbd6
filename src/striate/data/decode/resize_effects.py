"""What each resize mode costs an image: how much is kept, bent, filled, enlarged."""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.preprocess import Preprocess
from striate.data.decode.preprocess import scaled_sides


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How an image of some size meets the input.

    Args:
        kept: Share of the image that the network sees.
        bent: How much wider or taller than it should be; 1 is undistorted.
        border: Share of the input that is background.
        scale: Input pixels for a pixel of the image along its larger factor; above
            1 the image is enlarged.
    """

    kept: float
    bent: float
    border: float
    scale: float


def fit(preprocess: Preprocess, height: int, width: int) -> Fit:
    """Return what a preprocessing does to an image of this size.

    Example:
        >>> p = Preprocess(channels=3, height=64, width=64, resize="crop")
        >>> fit(p, 128, 256)
        Fit(kept=0.5, bent=1.0, border=0.0, scale=0.5)
    """
    rows, columns = scaled_sides(preprocess, height, width)
    seen = min(rows, preprocess.height) * min(columns, preprocess.width)
    scales = rows / height, columns / width
    stretched = preprocess.resize == "stretch"
    return Fit(
        kept=seen / (rows * columns),
        # Rounding to whole pixels bends, too little to be told.
        bent=max(scales) / min(scales) if stretched else 1.0,
        border=1 - seen / (preprocess.height * preprocess.width),
        scale=max(scales),
    )
