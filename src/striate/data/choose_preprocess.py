"""Choose how images meet the network, from what was given and what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from striate.core.preprocess import Preprocess, normalization
from striate.data.decode.decode import Header
from striate.data.scan import Census

# Where images differ in size and the user names none: small enough for the bundled
# networks to train on a CPU, large enough to recognize things.
DEFAULT_SIDE = 64
LARGEST_NATIVE_SIDE = 512

Normalize = tuple[str, Sequence[float] | None, Sequence[float] | None]


def choose_preprocess(
    census: Census,
    *,
    image_size: int | tuple[int, int] | None,
    in_chans: int | None,
    normalize: Normalize,
    **rules: Any,
) -> Preprocess:
    """Return the preprocessing; its mean is empty where it is yet to be measured.

    Args:
        census: The images' headers.
        image_size: A side, (height, width), or None for the images' own.
        in_chans: 1 or 3, or None: gray where every image is.
        normalize: A name, and mean and deviation where given.
        rules: Further fields of `Preprocess`.
    """
    headers = [header for header in census.headers if isinstance(header, Header)]
    return choose_for(
        common_shape(headers),
        common_channels(headers),
        image_size=image_size,
        in_chans=in_chans,
        normalize=normalize,
        **rules,
    )


def choose_for(
    own: tuple[int, int] | None,
    own_channels: int,
    *,
    image_size: int | tuple[int, int] | None,
    in_chans: int | None,
    normalize: Normalize,
    **rules: Any,
) -> Preprocess:
    """Return it for images that share a size `own`, or None where they differ."""
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if own is not None and max(own) > LARGEST_NATIVE_SIDE:
        own = None
    height, width = image_size or own or (DEFAULT_SIDE, DEFAULT_SIDE)
    channels = in_chans or own_channels
    chosen = Preprocess(channels=channels, height=height, width=width, **rules)
    mean, std = normalization(*normalize, channels)
    return replace(chosen, mean=mean, std=std)


def common_shape(headers: Sequence[Header]) -> tuple[int, int] | None:
    """Return the (height, width) that all images share, if they do."""
    sizes = {(h.height, h.width) for h in headers}
    return sizes.pop() if len(sizes) == 1 else None


def common_channels(headers: Sequence[Header]) -> int:
    """Return 1 where every image is gray, else the largest channel count."""
    return max(Counter(h.channels for h in headers))
