"""Checks of one item of a torch Dataset: an image and an integer label."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import DataError
from striate.core.format import count_text
from striate.core.preprocess_config import MAX_WHITE_LEVEL
from striate.data.decode.decode import is_pil_image, pil_to_pixels
from striate.data.decode.file_bytes import UndecodableError

KINDS = (
    "an item must be a pair (image, label): the image a PIL image, a uint8 array "
    "(height, width[, channels]), or a tensor (channels, height, width)"
)
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Item:
    """Checked item of a data set."""

    pixels: np.ndarray = field(repr=False)  # (H, W, C) uint8; float32 of a float tensor
    label: int  # index of the class
    is_tensor: bool = False  # whether the image was a tensor, which is never resized

    @property
    def is_float(self) -> bool:
        """Return whether the image was a float tensor."""
        return self.pixels.dtype == np.float32

    @property
    def kind(self) -> str:
        """Return the type and size of the image as text, for messages."""
        height, width, channels = self.pixels.shape
        dtype = "float" if self.is_float else "uint8"
        if self.is_tensor:
            return f"a {dtype} tensor of {channels}×{height}×{width}"
        return f"an image of {height}×{width}×{channels}"


@dataclass(frozen=True, kw_only=True)
class ItemReader:
    """Converter of items to 8-bit or float pixels.

    Example:
        >>> item = ItemReader().read((torch.zeros(1, 2, 3), 7), "item 0")
        >>> item.kind, item.label
        ('a float tensor of 1×2×3', 7)
    """

    background: int = 255  # gray level under transparent pixels
    white_level: int = MAX_WHITE_LEVEL  # the 16-bit gray value that becomes 255

    def read(self, item: Any, where: str) -> Item:
        """Check what a data set returned, and return its pixels and its label."""
        if isinstance(item, Item):
            return item
        if not isinstance(item, tuple | list) or len(item) != 2:
            what = f"the data set returned {_text(item)}, not a pair (image, label)"
            raise DataError(what, where=where, fix=KINDS)
        image, label = item
        number, pixels = read_label(label, where), self._pixels(image, where)
        if not pixels.size:
            what = f"the image is empty: its shape is {tuple(image.shape)}"
            raise DataError(what, where=where, fix=KINDS)
        return Item(pixels, number, isinstance(image, Tensor))

    def _pixels(self, image: Any, where: str) -> np.ndarray:
        if isinstance(image, Tensor):
            return _from_tensor(image, where)
        if isinstance(image, np.ndarray):
            return _from_array(image, where)
        if is_pil_image(image):
            try:
                return pil_to_pixels(image, self.background, self.white_level)
            except UndecodableError as error:
                what = f"the PIL image cannot be used: {error.reason}"
                raise DataError(what, where=where, fix=error.detail) from error
        raise DataError(f"the image is {_text(image)}", where=where, fix=KINDS)


def read_label(label: Any, where: str) -> int:
    """Return an integer label from an int, or from an array or tensor of one value.

    Raises:
        DataError: The label is no integer, or is negative.

    Example:
        >>> read_label(torch.tensor(3), "item 0")
        3
    """
    value = label
    if isinstance(label, Tensor | np.ndarray | np.generic):
        if label.ndim:
            what = f"the label has the shape {tuple(label.shape)}, not one integer"
            fix = "return one class index for each image; for one-hot labels: argmax; "
            fix += "for several labels: a CSV file with labels such as cat;dog"
            raise DataError(what, where=where, fix=fix)
        value = label.item()
    if not isinstance(value, int):
        what = f"the label is {_text(value)}, not an integer"
        fix = "return the index of the class: 0 to the number of classes − 1"
        raise DataError(what, where=where, fix=fix)
    if value < 0:
        what = f"the label is negative: {value}"
        fix = "labels are 0 to the number of classes − 1; leave out unlabeled images"
        raise DataError(what, where=where, fix=fix)
    return int(value)


def _from_tensor(image: Tensor, where: str) -> np.ndarray:
    shape = "×".join(map(str, image.shape))
    if image.ndim != 3:
        what = (
            f"the image tensor has {count_text(image.ndim, 'dimension')} "
            f"({shape}), not 3"
        )
        fix = "return (channels, height, width); for a gray image: image.unsqueeze(0)"
        raise DataError(what, where=where, fix=fix)
    if image.shape[2] == 3 and min(image.shape[:2]) > max(_CHANNELS):
        what = f"the image tensor is {shape}, which looks like height×width×channels"
        fix = "return (channels, height, width): image.permute(2, 0, 1)"
        raise DataError(what, where=where, fix=fix)
    if image.dtype != torch.uint8 and not image.is_floating_point():
        what = f"the image tensor has the type {image.dtype}"
        fix = "return uint8 (0 to 255), or float tensors that the network takes"
        raise DataError(what, where=where, fix=fix)
    rows = image.detach().cpu().permute(1, 2, 0)
    if image.dtype == torch.uint8:
        return np.ascontiguousarray(rows.numpy())
    pixels: np.ndarray = np.ascontiguousarray(rows.float().numpy())
    if not np.isfinite(pixels).all():
        what = f"the image tensor has {int((~np.isfinite(pixels)).sum())} NaN or "
        fix = "correct the transforms of the data set, or leave out this image"
        raise DataError(f"{what}infinite values", where=where, fix=fix)
    return pixels


def _from_array(image: np.ndarray, where: str) -> np.ndarray:
    if image.dtype != np.uint8:
        what = f"the image array has the type {image.dtype}, not uint8"
        fix = (
            "return uint8 (0 to 255), or a float tensor (channels, height, width) that "
            "the network takes"
        )
        raise DataError(what, where=where, fix=fix)
    if image.ndim not in (2, 3):
        what = f"the image array has {count_text(image.ndim, 'dimension')}, not 2 or 3"
        raise DataError(what, where=where, fix=KINDS)
    if image.ndim == 2:
        return np.ascontiguousarray(image)[..., None]
    if image.shape[0] in _CHANNELS and min(image.shape[1:]) > max(_CHANNELS):
        shape = "×".join(map(str, image.shape))
        what = f"the image array is {shape}, which looks like channels×height×width"
        fix = "return (height, width, channels): image.transpose(1, 2, 0)"
        raise DataError(what, where=where, fix=fix)
    return np.ascontiguousarray(image)


def _text(value: object) -> str:
    """Return a description of an unusable value, for error messages."""
    kind = type(value).__name__
    match value:
        case tuple() | list():
            return f"a {kind} of length {len(value)}"
        case dict():
            return f"a dict with the keys {', '.join(map(repr, list(value)[:4]))}"
        case str() | float():
            return f"the {kind} {value!r:.40}"
    return "None" if value is None else f"an object of the type {kind}"
