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
    """One torch operation of a forward pass."""

    name: str  # name in torch, such as `convolution`
    inputs: tuple[Shape, ...]  # shapes of all input tensors
    output: Shape  # shape of the first output
    macs: int | None  # multiply-adds; None if no rule counts them
    # Kernel, stride, padding and dilation of a convolution or pooling.
    window: SlidingWindow | None = None
    input_field: ReceptiveField | None = None  # receptive field of the first input
    receptive_field: ReceptiveField | None = None  # receptive field of the output
    number: int = 0  # position in the order of all operations
    # Pairs (index of an input that depends on the image, number of the operation that
    # produced it); −1 is the image itself.
    producers: tuple[tuple[int, int], ...] = ()
    # Whether each output position depends only on the same input position.
    local: bool = False


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Layer in the summary: one module call, or operations outside of leaf modules."""

    # Dotted name in the model; in parentheses for operations outside of leaf modules;
    # with ` #2` for a second call.
    name: str
    kind: str  # class of the module, or names of the operations
    output: Shape | None  # shape of one image's output, without the batch
    parameters: int  # number of parameters first used here, trainable or not
    trainable: int  # number of trainable parameters among `parameters`
    operations: tuple[Operation, ...] = ()  # the operations, in order
    activation: int = 0  # bytes of the output; 0 for views and in-place operations
    # Bytes per image that autograd saves for the backward pass.
    saved: int | None = None
    # Receptive field of the output's units.
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
    "_scaled_dot_product_flash_attention_for_cpu": "scaled_dot_product_attention",
    "mkldnn_rnn_layer": "lstm",
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
