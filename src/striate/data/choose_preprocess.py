"""Choose the preprocessing from the user's settings and the image headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from striate.core.preprocess_config import Preprocess, normalization
from striate.core.settings import AUTO
from striate.data.config import DataConfig
from striate.data.decode.decode import ImageHeader
from striate.data.scan import FileScan

# Used where images differ in size and no size is given: small enough to train the
# bundled networks on a CPU, large enough to recognize objects.
DEFAULT_SIDE = 64
LARGEST_NATIVE_SIDE = 512


def choose_preprocess(scan: FileScan, config: DataConfig) -> Preprocess:
    """Return the preprocessing settings; `mean` is empty until it is measured.

    Args:
        scan: Headers of the images.
        config: Settings; without `image_size` the size of the images is used, without
            `in_chans` 1 channel if every image is gray.
    """
    headers = [header for header in scan.headers if isinstance(header, ImageHeader)]
    return choose_preprocess_for(
        common_shape(headers), common_channels(headers), config
    )


def choose_preprocess_for(
    shape: tuple[int, int] | None, channels_of_images: int, config: DataConfig
) -> Preprocess:
    """Return the preprocessing settings; `shape` is the common image size or None."""
    size = config.image_size
    if isinstance(size, int):
        size = size, size
    if shape is not None and max(shape) > LARGEST_NATIVE_SIDE:
        shape = None
    height, width = size or shape or (DEFAULT_SIDE, DEFAULT_SIDE)
    channels = config.in_chans or channels_of_images
    name = "data" if config.normalize == AUTO else config.normalize
    mean, std = normalization(name, config.mean, config.std, channels)
    return Preprocess(
        channels=channels,
        height=height,
        width=width,
        resize=config.resize or "stretch",
        background=config.background_or_white,
        white_level=config.white_level_or_full,
        jpeg=config.jpeg,
        mean=mean,
        std=std,
    )


def common_shape(headers: Sequence[ImageHeader]) -> tuple[int, int] | None:
    """Return the common (height, width) of all images, or None if sizes differ."""
    sizes = {(h.height, h.width) for h in headers}
    return sizes.pop() if len(sizes) == 1 else None


def common_channels(headers: Sequence[ImageHeader]) -> int:
    """Return 1 if every image is gray, else the largest channel count."""
    return max(Counter(h.channels for h in headers))
