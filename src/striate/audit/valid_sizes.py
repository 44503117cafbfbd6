"""Find image sizes and channel counts that a network accepts, by test runs."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from striate.audit.meta_device import MetaMode, to_meta
from striate.audit.shapes import META
from striate.core.format import count_text
from striate.core.hooks import model_restored

Shape = tuple[int, int, int]
COMMON = (28, 32, 64, 96, 128, 160, 192, 224, 227, 240, 256, 299, 384, 512)
CHANNELS = (1, 3, 4)
TIME_LIMIT = 2.0  # seconds of trying


def suggest_size(model: nn.Module, shape: Shape) -> str:
    """Suggest an image size or a number of channels that the network accepts.

    Example:
        >>> flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        >>> suggest_size(flat, (3, 9, 9))
        'use image size 8 (--image-size 8)'
    """
    channels, start, _ = shape
    deadline = time.monotonic() + TIME_LIMIT
    with model_restored(model, to_meta):
        model.eval()
        if reason := other_input(model, shape):
            return f"{reason}: wrap it in a module that takes a batch of images"
        for count in (channels, *CHANNELS):
            accepts = partial(_accepts, model, count, deadline)
            side = next((side for side in _candidates(start) if accepts(side)), None)
            if side is None:
                continue
            if count == channels:
                return _sides(side, accepts)
            return f"use {count_text(count, 'channel')} (--in-chans {count})"
    return "no square image up to 512 with 1, 3 or 4 channels works either"


def other_input(model: nn.Module, shape: Shape) -> str:
    """Return the input that a network takes if it is not one batch; "" if unknown.

    Example:
        >>> other_input(nn.Bilinear(2, 2, 1), (1, 1, 2))
        'forward() takes 2 inputs (input1, input2)'
    """
    names = required_inputs(model)
    if len(names) > 1:
        count, listed = count_text(len(names), "input"), ", ".join(names)
        return f"forward() takes {count} ({listed})"
    image = torch.empty(1, *shape, device=META)
    for text, part in (("images", image[0]), ("batches", image)):
        for number in (1, 2, 3):
            if _runs(model, [part] * number):
                example = count_text(number, "tensor")
                return f"forward() takes a list of {text}, such as {example}"
    return ""


def required_inputs(model: nn.Module) -> list[str]:
    """Return the names of the inputs that a network's forward needs.

    Example:
        >>> required_inputs(nn.ReLU())
        ['input']
    """
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def _accepts(model: nn.Module, channels: int, deadline: float, side: int) -> bool:
    if time.monotonic() > deadline:
        return False
    return _runs(model, torch.empty(1, channels, side, side, device=META))


def _runs(model: nn.Module, inputs: Any) -> bool:
    try:
        with torch.no_grad(), MetaMode(lambda func, args, out: None):
            model(inputs)
    except Exception:  # a foreign forward may raise anything
        return False
    return True


def _candidates(start: int) -> Iterator[int]:
    yield start
    yield from sorted(COMMON, key=lambda side: abs(side - start))
    for step in range(1, 17):
        yield start + step
        if start > step:
            yield start - step


def _sides(side: int, accepts: Callable[[int], bool]) -> str:
    """Return advice with the range of accepted image sizes around a valid size."""
    low = _last_accepted(side, -1, accepts)
    high = _last_accepted(side, 1, accepts)
    if low == high:
        return f"use image size {side} (--image-size {side})"
    reach = f"{low} or larger" if high > 2 * side else f"from {low} to {high}"
    return f"use an image size {reach}, such as {side} (--image-size {side})"


def _last_accepted(start: int, sign: int, accepts: Callable[[int], bool]) -> int:
    """Return the smallest (`sign` −1) or largest (`sign` 1) accepted image size."""
    accepted, step = start, 1

    def next_is_accepted() -> bool:
        side = accepted + sign * step
        return side >= 1 and accepts(side)

    while step <= 4 * start and next_is_accepted():
        accepted += sign * step
        step *= 2
    while step:
        accepted += sign * step if next_is_accepted() else 0
        step //= 2
    return accepted
