"""Data types for the layers and torch operations of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from striate.audit.receptive_field_tracker import ReceptiveField
from striate.audit.window_args import SlidingWindow

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One torch operation of a forward pass.

    Args:
        name: Name in torch, such as `convolution`.
        inputs: Shapes of all input tensors.
        output: Shape of the first output.
        macs: Multiply-adds; None if no rule counts them.
        window: Kernel, stride, padding and dilation of a convolution or pooling.
        input_field: Receptive field of the first input.
        receptive_field: Receptive field of the output.
        number: Position in the order of all operations.
        producers: Pairs (index of an input that depends on the image, number of the
            operation that produced it); −1 is the image itself.
        local: Whether each output position depends only on the same input position.
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
    """Layer in the summary: one module call, or operations outside of leaf modules.

    Args:
        name: Dotted name in the model; in parentheses for operations outside of leaf
            modules; with ` #2` for a second call.
        kind: Class of the module, or names of the operations.
        output: Shape of one image's output, without the batch.
        parameters: Number of parameters first used here, trainable or not.
        trainable: Number of trainable parameters among `parameters`.
        operations: The operations, in order.
        activation: Bytes of the output; 0 for views and in-place operations.
        saved: Bytes per image that autograd saves for the backward pass.
        receptive_field: Receptive field of the output's units.
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
        """Multiply-adds (MACs) for one image; operations without a rule count 0."""
        return sum(operation.macs or 0 for operation in self.operations)

    @property
    def window(self) -> SlidingWindow | None:
        """Sliding window of the layer; None if the layer has no or several windows."""
        windows = [o.window for o in self.operations if o.window is not None]
        return windows[0] if len(windows) == 1 else None


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a (channels, height, width) shape as height×width×channels.

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
    *("t", "transpose", "permute", "expand", "clone", "copy", "select", "slice"),
    *("view", "unsqueeze", "squeeze", "split", "fill", "to"),
}


def functional_kind(operations: Sequence[Operation]) -> str:
    """Join the names of operations outside of modules, such as `add, relu`.

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
