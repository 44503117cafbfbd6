"""Effects of a resize mode: visible fraction, distortion, border and enlargement."""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.preprocess_config import Preprocess, scaled_sides


@dataclass(frozen=True, kw_only=True)
class ResizeEffect:
    """Effect of resizing an image to the input size of the network."""

    visible: float  # fraction of the image area that the network sees
    distortion: float  # ratio of the scales of height and width; 1 is undistorted
    border: float  # fraction of the input that is background
    # input size divided by image size, the larger ratio of height and width; above 1
    # the image is enlarged
    scale: float


def resize_effect(preprocess: Preprocess, height: int, width: int) -> ResizeEffect:
    """Return the effects of resizing an image of the given size by `preprocess`.

    Example:
        >>> p = Preprocess(channels=3, height=64, width=64, resize="crop")
        >>> resize_effect(p, 128, 256)
        ResizeEffect(visible=0.5, distortion=1.0, border=0.0, scale=0.5)
    """
    rows, columns = scaled_sides(preprocess, height, width)
    visible_pixels = min(rows, preprocess.height) * min(columns, preprocess.width)
    scales = rows / height, columns / width
    stretched = preprocess.resize == "stretch"
    return ResizeEffect(
        visible=visible_pixels / (rows * columns),
        # Rounding to whole pixels distorts by too little to matter.
        distortion=max(scales) / min(scales) if stretched else 1.0,
        border=1 - visible_pixels / (preprocess.height * preprocess.width),
        scale=max(scales),
    )
