"""Choose the preprocessing from the user's settings and the image headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from striate.core.preprocess_config import Preprocess, normalization
from striate.data.decode.decode import ImageHeader
from striate.data.scan import FileScan

# Used where images differ in size and no size is given: small enough to train the
# bundled networks on a CPU, large enough to recognize objects.
DEFAULT_SIDE = 64
LARGEST_NATIVE_SIDE = 512

Normalize = tuple[str, Sequence[float] | None, Sequence[float] | None]


def choose_preprocess(
    scan: FileScan,
    *,
    image_size: int | tuple[int, int] | None,
    in_chans: int | None,
    normalize: Normalize,
    **rules: Any,
) -> Preprocess:
    """Return the preprocessing settings; `mean` is empty until it is measured."""
    headers = [header for header in scan.headers if isinstance(header, ImageHeader)]
    return choose_preprocess_for(
        common_shape(headers),
        common_channels(headers),
        image_size=image_size,
        in_chans=in_chans,
        normalize=normalize,
        **rules,
    )


def choose_preprocess_for(
    shape: tuple[int, int] | None,
    channels_of_images: int,
    *,
    image_size: int | tuple[int, int] | None,
    in_chans: int | None,
    normalize: Normalize,
    **rules: Any,
) -> Preprocess:
    """Return the preprocessing settings; `shape` is None if image sizes differ."""
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if shape is not None and max(shape) > LARGEST_NATIVE_SIDE:
        shape = None
    height, width = image_size or shape or (DEFAULT_SIDE, DEFAULT_SIDE)
    channels = in_chans or channels_of_images
    preprocess = Preprocess(channels=channels, height=height, width=width, **rules)
    name, given_mean, given_std = normalize
    mean, std = normalization(name, given_mean, given_std, channels)
    return replace(preprocess, mean=mean, std=std)


def common_shape(headers: Sequence[ImageHeader]) -> tuple[int, int] | None:
    """Return the common (height, width) of all images, or None if sizes differ."""
    sizes = {(h.height, h.width) for h in headers}
    return sizes.pop() if len(sizes) == 1 else None


def common_channels(headers: Sequence[ImageHeader]) -> int:
    """Return 1 if every image is gray, else the largest channel count."""
    return max(Counter(h.channels for h in headers))
