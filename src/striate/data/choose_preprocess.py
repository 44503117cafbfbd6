"""Choose how pictures meet the network, from what was given and what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from striate.core.spec import Preprocess, normalisation
from striate.data.decode.decode import Header
from striate.data.scan import Census

# Where pictures differ in size and the user names none: small enough for the bundled
# networks to train on a CPU, large enough to recognise things.
DEFAULT_SIDE = 64
LARGEST_NATIVE_SIDE = 512

Normalise = tuple[str, Sequence[float] | None, Sequence[float] | None]


def choose_preprocess(
    census: Census,
    *,
    image_size: int | tuple[int, int] | None,
    in_chans: int | None,
    normalise: Normalise,
    **rules: Any,
) -> Preprocess:
    """Return the preprocessing; its mean is empty where it is yet to be measured.

    Args:
        census: The pictures' headers.
        image_size: A side, (height, width), or None for the pictures' own.
        in_chans: 1 or 3, or None: grey where every picture is.
        normalise: A name, and mean and deviation where given.
        rules: Further fields of `Preprocess`.
    """
    headers = [header for header in census.headers if isinstance(header, Header)]
    return choose_for(
        common_shape(headers),
        common_channels(headers),
        image_size=image_size,
        in_chans=in_chans,
        normalise=normalise,
        **rules,
    )


def choose_for(
    own: tuple[int, int] | None,
    own_channels: int,
    *,
    image_size: int | tuple[int, int] | None,
    in_chans: int | None,
    normalise: Normalise,
    **rules: Any,
) -> Preprocess:
    """Return it for pictures that share a size `own`, or None where they differ."""
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if own is not None and max(own) > LARGEST_NATIVE_SIDE:
        own = None
    height, width = image_size or own or (DEFAULT_SIDE, DEFAULT_SIDE)
    channels = in_chans or own_channels
    chosen = Preprocess(channels=channels, height=height, width=width, **rules)
    mean, std = normalisation(*normalise, channels)
    return replace(chosen, mean=mean, std=std)


def common_shape(headers: Sequence[Header]) -> tuple[int, int] | None:
    """Return the (height, width) that all pictures share, if they do."""
    sizes = {(h.height, h.width) for h in headers}
    return sizes.pop() if len(sizes) == 1 else None


def common_channels(headers: Sequence[Header]) -> int:
    """Return 1 where every picture is grey, else the largest channel count."""
    return max(Counter(h.channels for h in headers))
