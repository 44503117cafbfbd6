"""A layer as it ran, and the operations it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from striate.audit.rf_tracker import ReceptiveField
from striate.audit.window_args import SlidingWindow

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One thing that was computed.

    Args:
        name: torch's name for it.
        inputs: Shapes of every tensor it was given.
        output: Shape of its first result.
        macs: Multiply-adds; None where no rule counts them.
        window: Its kernel, stride, padding and dilation, if it slides one.
        input_field: What the units of its first input see.
        receptive_field: What its own units see.
        number: Its place in the order of all operations.
        producers: Which of its inputs come of the image, and the operations that made
            them; −1 is the image itself.
        local: Each position of its output comes from the same position alone.
    """

    name: str
    inputs: tuple[Shape, ...]
    output: Shape
    macs: int | None
    window: SlidingWindow | None = None
    input_field: ReceptiveField | None = None
    receptive_field: ReceptiveField | None = None
    number: int = 0
    producers: tuple[tuple[int, int], ...] = ()
    local: bool = False


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module's call, or what a container computed itself between two of them.

    Args:
        name: Dotted name in the model; in parentheses what no module did; ` #2` marks
            a second call.
        kind: The module's class, or the operations.
        output: Shape of one image's output, without the batch.
        parameters: Numbers first used here, trainable or not.
        trainable: Those of them that learn.
        operations: What was computed, in order.
        activation: Bytes of the output, where it takes memory of its own.
        saved: Bytes an image that training keeps for the way back.
        receptive_field: What the output's units see.
    """

    name: str
    kind: str
    output: Shape | None
    parameters: int
    trainable: int
    operations: tuple[Operation, ...] = ()
    activation: int = 0
    saved: int | None = None
    receptive_field: ReceptiveField | None = None
    key: tuple[object, ...] = ()

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of one image, of those operations that have a rule."""
        return sum(operation.macs or 0 for operation in self.operations)

    @property
    def window(self) -> SlidingWindow | None:
        """The sliding window, if there is one and no other."""
        windows = [o.window for o in self.operations if o.window is not None]
        return windows[0] if len(windows) == 1 else None


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a (channels, height, width) shape as height×width×channels.

    Example:
        >>> shape_text((25, 28, 14)), shape_text((2450,))
        ('28×14×25', '2450')
    """
    ordered = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    return "×".join(map(str, ordered))


_DISPLAY_NAMES = {
    "max_pool2d_with_indices": "max_pool2d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "native_batch_norm": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "convolution": "conv",
    "addmm": "linear",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "_unsafe_view": "view",
    "constant_pad_nd": "pad",
}
_DATA_MOVEMENT = {
    "t",
    "transpose",
    "permute",
    "expand",
    "clone",
    "copy",
    "select",
    "slice",
}
_DATA_MOVEMENT |= {"view", "unsqueeze", "squeeze", "split", "fill", "to"}


def functional_kind(operations: Sequence[Operation]) -> str:
    """Name what a container computed itself: `add, relu`.

    Example:
        >>> shapes = {"inputs": (), "output": (1, 8), "macs": 0}
        >>> functional_kind([Operation(name=n, **shapes) for n in ("add", "relu_")])
        'add, relu'
    """
    on_image = [o for o in operations if o.receptive_field is not None] or operations
    names = [
        o.name if o.name in _DISPLAY_NAMES else o.name.strip("_") for o in on_image
    ]
    displayed = list(dict.fromkeys(_DISPLAY_NAMES.get(name, name) for name in names))
    computing = [name for name in displayed if name not in _DATA_MOVEMENT]
    if not computing and len(operations[-1].output) == 2:
        return "flatten"
    return ", ".join((computing or displayed)[:3])
