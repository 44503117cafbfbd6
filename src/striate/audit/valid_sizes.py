"""Which images a network can take, found by asking it on shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from striate.audit.meta_mode import Ghost, ghost_of
from striate.audit.shapes import META
from striate.core.hooks import model_restored

Shape = tuple[int, int, int]
COMMON = (28, 32, 64, 96, 128, 160, 192, 224, 227, 240, 256, 299, 384, 512)
CHANNELS = (1, 3, 4)
PATIENCE = 2.0  # seconds of asking


def way_out(model: nn.Module, shape: Shape) -> str:
    """Return what to do about an image that a network refuses.

    Example:
        >>> flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        >>> way_out(flat, (3, 9, 9))
        'use a side of 8 (--image-size 8)'
    """
    channels, near, _ = shape
    until = time.monotonic() + PATIENCE
    with model_restored(model, ghost_of):
        model.eval()
        for count in (channels, *CHANNELS):
            takes = partial(_takes, model, count, until)
            found = next((side for side in _candidates(near) if takes(side)), None)
            if found is None:
                continue
            if count == channels:
                return _sides(found, takes)
            return f"give it {counted(count)} (--in-chans {count})"
    return "no square image of 1, 3 or 4 channels up to 512 goes through either"


def _takes(model: nn.Module, channels: int, until: float, side: int) -> bool:
    if time.monotonic() > until:
        return False
    try:
        with torch.no_grad(), Ghost(lambda func, args, out: None):
            model(torch.empty(1, channels, side, side, device=META))
    except Exception:  # a foreign forward may raise anything
        return False
    return True


def counted(channels: int) -> str:
    """Write a number of channels.

    Example:
        >>> counted(1), counted(3)
        ('1 channel', '3 channels')
    """
    return f"{channels} channel{'' if channels == 1 else 's'}"


def _candidates(near: int) -> Iterator[int]:
    yield near
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
