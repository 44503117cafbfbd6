"""Which pictures a network can take, found by asking it on shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from striate.audit.ghost import META, Ghost, ghost_of
from striate.core.taps import lent

Shape = tuple[int, int, int]
COMMON = (28, 32, 64, 96, 128, 160, 192, 224, 227, 240, 256, 299, 384, 512)
CHANNELS = (1, 3, 4)
PATIENCE = 2.0  # seconds of asking


def way_out(model: nn.Module, shape: Shape) -> str:
    """Return what to do about a picture that a network refuses.

    Example:
        >>> flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        >>> way_out(flat, (3, 9, 9))
        'use a side of 8 (--image-size 8)'
    """
    channels, height, width = shape
    until = time.monotonic() + PATIENCE
    with lent(model, ghost_of):
        model.eval()

        def takes(count: int, side: int) -> bool:
            return time.monotonic() < until and _takes(model, (count, side, side))

        for count in (channels, *CHANNELS):
            found = _a_side(lambda side, count=count: takes(count, side), height)
            if found is None:
                continue
            if count != channels:
                return f"give it {count} channels (--in-chans {count})"
            return _sides(found, lambda side: takes(channels, side))
    return "no square picture of 1, 3 or 4 channels up to 512 goes through either"


def _takes(model: nn.Module, shape: Shape) -> bool:
    try:
        with torch.no_grad(), Ghost(lambda func, args, out: None):
            model(torch.empty(1, *shape, device=META))
    except Exception:  # a foreign forward may raise anything
        return False
    return True


def _a_side(takes: Callable[[int], bool], near: int) -> int | None:
    """Return a side that goes through: the nearest, a common one, or none."""
    return next((side for side in _candidates(near) if takes(side)), None)


def _candidates(near: int) -> Iterator[int]:
    yield from sorted(COMMON, key=lambda side: abs(side - near))
    for step in range(1, 17):
        yield near + step
        if near > step:
            yield near - step


def _sides(found: int, takes: Callable[[int], bool]) -> str:
    """Say how far the sides reach that go through, to both ends of the found one."""
    low = _last(found, -1, takes)
    high = _last(found, 1, takes)
    if low == high:
        return f"use a side of {found} (--image-size {found})"
    reach = f"from {low} on" if high > 2 * found else f"from {low} to {high}"
    return f"use a side {reach}, such as {found} (--image-size {found})"


def _last(start: int, sign: int, takes: Callable[[int], bool]) -> int:
    """Return the last side in a direction before one is refused, by doubling steps."""
    good, step = start, 1
    while step <= 4 * start and good + sign * step >= 1 and takes(good + sign * step):
        good += sign * step
        step *= 2
    while step:
        if good + sign * step >= 1 and takes(good + sign * step):
            good += sign * step
        step //= 2
    return good
