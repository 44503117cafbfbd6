"""C program of a network in the making: arrays, weights, steps and memory."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from striate.exporters.c_source.c_text import c_comment
from striate.exporters.graph import GraphNode
from striate.exporters.graph_builder import UnsupportedOperationError

ALIGNMENT = 16  # floats: arrays start at multiples of a cache line
MAX_LOOPS = 5  # of copies and of arithmetic with broadcasting
_PLACE = re.compile(r"<(\d+)\+(\d+)>")  # buffer and offset in the text of a step


@dataclass(frozen=True, kw_only=True)
class CArray:
    """Values of one image in memory: a view of a buffer, or a constant."""

    buffer: int | None  # None for a constant
    shape: tuple[int, ...]  # as in torch, with the batch dimension 1
    strides: tuple[int, ...]  # floats, in the order of `shape`
    offset: int = 0  # floats

    @property
    def address(self) -> str:
        """Return the C expression of the first value, with a mark for the buffer."""
        if self.buffer is None:
            return f"w + {self.offset}"
        return f"<{self.buffer}+{self.offset}>"

    @property
    def size(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)

    @property
    def order(self) -> list[int]:
        """Return the dimensions from the largest stride to the smallest."""
        ranks = range(len(self.shape))
        return sorted(ranks, key=lambda d: (-self.strides[d], d))

    @property
    def is_dense(self) -> bool:
        """Return whether the values lie side by side in memory, in any order."""
        return self.has_order(self.order)

    def has_order(self, order: Sequence[int]) -> bool:
        """Return whether the values lie side by side in this order of dimensions."""
        expected = dense_strides(self.shape, order)
        return all(
            size == 1 or a == b
            for size, a, b in zip(self.shape, self.strides, expected, strict=True)
        )


def dense_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of values side by side, in an order of dimensions.

    Example:
        >>> dense_strides((1, 3, 4, 5), [0, 2, 3, 1])
        (60, 1, 15, 3)
    """
    strides, step = [0] * len(shape), 1
    for dim in reversed(order):
        strides[dim] = step
        step *= shape[dim]
    return tuple(strides)


def memory_order(rank: int) -> list[int]:
    """Return the usual order of dimensions: the channels of an image are last."""
    return [0, 2, 3, 1] if rank == 4 else list(range(rank))


@dataclass(frozen=True, kw_only=True)
class CStep:
    """One call of a kernel."""

    comment: str
    text: str
    buffers: frozenset[int]  # read or written


class CProgram:
    """Collects the calls of kernels, the weights and the buffers of a network."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()
        self.functions: dict[str, str] = {}  # elementwise functions by their text
        self.steps: list[CStep] = []
        self.values: dict[str, CArray] = {}
        self.zeros = ALIGNMENT  # length of the row of zeros
        self.taps = 1  # largest number of taps of a table
        self.node: GraphNode | None = None  # the operation in work
        self._sizes: list[int] = []
        self._weights: list[np.ndarray] = []
        self._offsets: dict[tuple[tuple[int, ...], bytes], int] = {}
        self._length = 0

    def error(self, what: str) -> UnsupportedOperationError:
        """Return the error that an operation is not available in C."""
        node = self.node
        layer = f"layer {node.layer}" if node and node.layer else "forward()"
        kind = f"operation {node.kind}: " if node else ""
        fix = "use --to onnx, or replace this operation"
        return UnsupportedOperationError(kind + what, where=layer, fix=fix)

    def new(self, shape: Sequence[int], order: Sequence[int] | None = None) -> CArray:
        """Return a new array in an order of dimensions."""
        order = memory_order(len(shape)) if order is None else order
        strides = dense_strides(shape, order)
        return self.like(tuple(shape), strides, math.prod(shape))

    def like(
        self, shape: tuple[int, ...], strides: tuple[int, ...], size: int
    ) -> CArray:
        """Return a new array with these strides."""
        self._sizes.append(size)
        return CArray(buffer=len(self._sizes) - 1, shape=shape, strides=strides)

    def weights(self, values: np.ndarray) -> str:
        """Store constant values; return the C expression of their address."""
        return self.constant(values).address

    def constant(self, values: np.ndarray) -> CArray:
        """Store constant values, once, in row-major order."""
        values = np.ascontiguousarray(values, np.float32)
        key = values.shape, values.tobytes()
        if key not in self._offsets:
            self._offsets[key] = self._length
            padded = -(-values.size // ALIGNMENT) * ALIGNMENT
            flat = np.zeros(padded, "<f4")
            flat[: values.size] = values.reshape(-1)
            self._weights.append(flat)
            self._length += padded
        strides = dense_strides(values.shape, range(values.ndim))
        offset = self._offsets[key]
        return CArray(buffer=None, shape=values.shape, strides=strides, offset=offset)

    def weight_bytes(self) -> bytes:
        """Return all constants, little-endian float32."""
        return b"".join(part.tobytes() for part in self._weights)

    def step(self, kernel: str, text: str) -> None:
        """Append a call of a kernel; arrays stand in the text by their address."""
        if kernel:
            self.kernels.add(kernel)
        buffers = frozenset(int(buffer) for buffer, _ in _PLACE.findall(text))
        layer = self.node.layer if self.node else ""
        comment = c_comment(layer)
        self.steps.append(CStep(comment=comment, text=text, buffers=buffers))

    def copy(self, source: CArray, target: CArray) -> None:
        """Append a copy between two orders in memory."""
        sizes, (xs, ys) = self.loops(source.shape, (source.strides, target.strides))
        n, x, y = (braced(v) for v in (sizes, xs, ys))
        text = f"copy({source.address}, {target.address}, INTS{n}, INTS{x}, INTS{y});"
        self.step("copy", text)

    def ordered(self, array: CArray, order: Sequence[int]) -> CArray:
        """Return the array in an order of dimensions: itself, or a copy."""
        if array.has_order(order):
            strides = dense_strides(array.shape, order)
            return replace(array, strides=strides)
        target = self.new(array.shape, order)
        self.copy(array, target)
        return target

    def image(self, name: str) -> CArray:
        """Return a value (1, C, H, W) in the order H, W, C; pixels may have gaps."""
        array = self.values[name]
        if len(array.shape) != 4 or array.shape[0] != 1:
            raise self.error(f"inputs of the shape {array.shape}")
        _, channels, height, width = array.shape
        _, step, down, across = array.strides
        regular = channels == 1 or step == 1
        if width == 1:
            regular = regular and (height == 1 or down >= channels)
        else:
            regular = regular and across >= channels
            regular = regular and (height == 1 or down == across * width)
        return array if regular else self.ordered(array, memory_order(4))

    def loops(
        self, shape: Sequence[int], strides: Sequence[Sequence[int]]
    ) -> tuple[list[int], list[list[int]]]:
        """Return sizes and strides of five loops; the last one runs over most memory.

        Dimensions that follow each other in all arrays become one loop.
        """
        dims = [d for d in range(len(shape)) if shape[d] > 1]
        dims.sort(key=lambda d: tuple(-s[d] for s in reversed(strides)))
        sizes: list[int] = []
        steps: list[list[int]] = [[] for _ in strides]
        for dim in dims:
            joined = sizes and all(
                row[-1] == s[dim] * shape[dim]
                for row, s in zip(steps, strides, strict=True)
            )
            if joined:
                sizes[-1] *= shape[dim]
                for row, s in zip(steps, strides, strict=True):
                    row[-1] = s[dim]
                continue
            sizes.append(shape[dim])
            for row, s in zip(steps, strides, strict=True):
                row.append(s[dim])
        missing = MAX_LOOPS - len(sizes)
        if missing < 0:
            raise self.error("values with too many dimensions")
        return [1] * missing + sizes, [[0] * missing + row for row in steps]

    def place(self, permanent: Sequence[int]) -> tuple[dict[int, int], int]:
        """Return the offset of each buffer, and the size of the memory, in floats.

        Buffers whose values are needed at the same time do not overlap.

        Args:
            permanent: Buffers of the input and of the output; they live all the time.
        """
        lives: dict[int, tuple[int, int]] = dict.fromkeys(
            permanent, (-1, len(self.steps))
        )
        for index, step in enumerate(self.steps):
            for buffer in step.buffers:
                first, last = lives.get(buffer, (index, index))
                lives[buffer] = min(first, index), max(last, index)
        return _offsets(lives, self._sizes)


def _offsets(
    lives: dict[int, tuple[int, int]], sizes: Sequence[int]
) -> tuple[dict[int, int], int]:
    """Place the largest buffers first, each at the lowest free address."""
    placed: dict[int, tuple[int, int]] = {}  # offset, end
    for buffer in sorted(lives, key=lambda b: (-sizes[b], b)):
        first, last = lives[buffer]
        size = -(-sizes[buffer] // ALIGNMENT) * ALIGNMENT
        taken = sorted(
            place
            for other, place in placed.items()
            if lives[other][0] <= last and first <= lives[other][1]
        )
        offset = 0
        for start, end in taken:
            if start - offset >= size:
                break
            offset = max(offset, end)
        placed[buffer] = offset, offset + size
    total = max((end for _, end in placed.values()), default=0)
    return {buffer: offset for buffer, (offset, _) in placed.items()}, total


def with_offsets(text: str, offsets: dict[int, int]) -> str:
    """Return the text of a step with the addresses of its buffers."""
    return _PLACE.sub(lambda m: f"m + {offsets[int(m[1])] + int(m[2])}", text)


def braced(values: Sequence[object]) -> str:
    """Return an initializer on one line.

    Example:
        >>> braced([1, 2])
        '{1, 2}'
    """
    return "{" + ", ".join(str(value) for value in values) + "}"
