"""Record every torch operation of a forward pass, with its layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from striate.audit.fused_calls import scratch_bytes
from striate.audit.layer import Layer, Operation, Shape, functional_kind
from striate.audit.live_memory import LiveMemory
from striate.audit.macs import count_macs
from striate.audit.meta_device import tensors_in
from striate.audit.quantized import quantized_weights
from striate.audit.receptive_field_tracker import ReceptiveField, bound_all
from striate.audit.tracker_rules import is_local, propagate_field
from striate.audit.window_args import window_of

_FIELD = "_striate_field"
_PRODUCER = "_striate_producer"
IMAGE = -1  # the producer of the input image
_SILENT = {"detach", "lift_fresh", "alias"}


@dataclass(eq=False, slots=True)
class LayerRecord:
    """Mutable record of a row of the layer summary, filled during the forward pass."""

    name: str
    module: nn.Module | None
    key: tuple[Any, ...]
    operations: list[Operation] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    output: Shape | None = None
    receptive_field: ReceptiveField | None = None
    activation: int = 0


class ModuleRecord:
    """Record of a running module call: its current summary row and its row count."""

    __slots__ = ("call", "input_shape", "is_row", "module", "name", "row", "rows")

    def __init__(
        self,
        name: str,
        module: nn.Module,
        call: int,
        inputs: object = (),
        *,
        packed: bool = False,  # whether the module has packed (quantized) weights
    ) -> None:
        first = inputs[0] if isinstance(inputs, tuple) and inputs else None
        self.input_shape = first.shape[1:] if isinstance(first, Tensor) else None
        self.name = name
        self.module = module
        self.call = call
        self.is_row = (
            packed
            or not module._modules
            or any(own is not None for own in module._parameters.values())
        )
        self.row: LayerRecord | None = None
        self.rows = 0


class Recorder:
    """Recorder of a forward pass: one row per layer call, in execution order.

    A module without children, or with its own parameters, is one row. The operations
    that a container runs between its children are also one row. So each operation
    belongs to exactly one row.

    With `memory_only`, only memory and the current row are measured.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Sequence[Tensor],
        buffers: Sequence[Tensor],
        *,
        memory_only: bool = False,
    ) -> None:
        self._memory_only = memory_only
        self.rows: list[LayerRecord] = []
        self.live_memory = LiveMemory()
        self.container_outputs: dict[str, LayerRecord] = {}  # the last call of each
        self._stack = [ModuleRecord("", model, 0)]
        self._calls: dict[str, int] = {}
        self._count = 0
        packed = ((id(m), quantized_weights(m)) for m in model.modules())
        self._packed = {key: tensors for key, tensors in packed if tensors}
        self.packed_weights = [w for own in self._packed.values() for w in own]
        weights = [*weights, *self.packed_weights]
        self._unused = {id(weight): weight for weight in weights}
        self._overwritten: dict[int, Tensor] = {}
        for tensor in (*weights, *buffers):
            self.live_memory.ignore(tensor)

    @property
    def location(self) -> tuple[str, str, Shape | None]:
        """Return name, class and input shape of the innermost running module."""
        frame = self._stack[-1]
        shape = None if frame.input_shape is None else tuple(frame.input_shape)
        return frame.name, type(frame.module).__name__, shape

    @property
    def unused(self) -> list[Tensor]:
        """Return the weights that no operation has used."""
        return list(self._unused.values())

    def enter(self, name: str, module: nn.Module, inputs: object) -> None:
        """Record the start of a module call."""
        self._calls[name] = self._calls.get(name, 0) + 1
        packed = self._packed.get(id(module), ())
        frame = ModuleRecord(
            name, module, self._calls[name], inputs, packed=bool(packed)
        )
        self._stack.append(frame)
        if frame.is_row:
            row = self._begin(frame)
            row.weights += [w for w in packed if self._unused.pop(id(w), None) is w]

    def leave(self, name: str, module: nn.Module, output: object) -> None:
        """Record the end of a module call and of its unfinished child calls."""
        frame = self._stack.pop()
        while frame.module is not module:
            frame = self._stack.pop()
        tensors = tensors_in(output)
        if not tensors:
            return
        if frame.is_row and frame.row is not None:
            row = frame.row
            if module._modules:  # it ends after what is inside it
                self.rows.remove(row)
                self.rows.append(row)
        else:
            row = self.container_outputs.setdefault(name, LayerRecord(name, module, ()))
        row.output = tuple(tensors[0].shape)
        row.receptive_field = field_of(tensors[0], self._overwritten)

    def _begin(self, frame: ModuleRecord) -> LayerRecord:
        frame.rows += 1
        module = frame.module if frame.is_row else None
        key = (frame.name, frame.call, frame.rows)
        row = frame.row = LayerRecord(frame.name, module, key)
        self.rows.append(row)
        return row

    def drop_unfinished(self) -> None:
        """Remove the summary rows of layers that an error left unfinished."""
        for row in [r for r in self.rows if r.module is not None and r.output is None]:
            self.rows.remove(row)
            self._unused.update((id(weight), weight) for weight in row.weights)

    def current(self) -> LayerRecord:
        """Return the summary row that the next operation belongs to."""
        frame = self._stack[-1]
        if frame.row is None or not (frame.is_row or frame.row is self.rows[-1]):
            return self._begin(frame)
        return frame.row

    def record_operation(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        """Record one torch operation in the current row of the layer summary."""
        if self._memory_only:
            self._record_memory(func, args, out)
            return
        name = func.overloadpacket.__name__
        inputs, outputs = tensors_in(args), tensors_in(out)
        if name in _SILENT and inputs:
            same = field_of(inputs[0], self._overwritten)
            if same is not None:
                set_field(outputs[0], same, producer_of(inputs[0]))
            return
        if not outputs:
            return
        row = self.current()
        sources = []
        for position, tensor in enumerate(inputs):
            weight = self._unused.pop(id(tensor), None)
            if weight is not None:
                row.weights.append(weight)
            source = field_of(tensor, self._overwritten)
            if source is not None:
                sources.append((position, source))
        producers = tuple((i, producer_of(inputs[i])) for i, _ in sources)
        fields = self._propagate(func, args, sources, outputs) if sources else []
        self._add_output_memory(row, outputs)
        self.live_memory.add_temporary(scratch_bytes(func, args))
        shape = tuple(outputs[0].shape)
        row.operations.append(
            Operation(
                name=name,
                inputs=tuple([tuple(t.shape) for t in inputs]),
                output=shape,
                macs=count_macs(func, args, shape),
                window=window_of(func, args),
                input_field=sources[0][1] if sources else None,
                receptive_field=fields[0] if fields else None,
                number=self._count,
                producers=producers,
                local=is_local(func),
            )
        )
        for tensor in outputs if sources else ():
            setattr(tensor, _PRODUCER, self._count)
        self._count += 1

    def _record_memory(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        if func.overloadpacket.__name__ in _SILENT and tensors_in(args):
            return
        outputs = tensors_in(out)
        if outputs:
            self.current()
        for tensor in outputs:
            self.live_memory.enter(tensor)
        self.live_memory.add_temporary(scratch_bytes(func, args))

    def _propagate(
        self,
        func: Any,
        args: tuple[Any, ...],
        sources: Sequence[tuple[int, ReceptiveField]],
        outputs: Sequence[Tensor],
    ) -> list[ReceptiveField]:
        fields: list[ReceptiveField] = []
        for index, tensor in enumerate(outputs):
            if not tensor.numel():  # batch norm's statistics, and such
                continue
            if tensor.dim() != outputs[0].dim():
                output = bound_all([source for _, source in sources], tensor.shape)
            else:
                output = propagate_field(func, args, sources, tensor.shape, index)
            previous = getattr(tensor, _FIELD, None)
            setattr(tensor, _FIELD, output)
            # Writing into a view changes the view's base.
            writes_view = args and tensor is args[0] and tensor._base is not None
            if previous is not output and writes_view:
                self._overwritten[tensor.untyped_storage()._cdata] = tensor
            fields.append(output)
        return fields

    def _add_output_memory(self, row: LayerRecord, outputs: Sequence[Tensor]) -> None:
        added = [self.live_memory.enter(tensor) for tensor in outputs]
        if added[0] or not row.operations:  # else a view, or written in place
            row.activation = added[0]
        if row.module is None:
            row.output = tuple(outputs[0].shape)
            row.receptive_field = getattr(outputs[0], _FIELD, None)


def set_field(tensor: Tensor, field: ReceptiveField, producer: int = IMAGE) -> None:
    """Attach a receptive field to a tensor."""
    setattr(tensor, _FIELD, field)
    setattr(tensor, _PRODUCER, producer)


def producer_of(tensor: Tensor) -> int:
    """Return the serial number of the operation that produced a tensor."""
    return int(getattr(tensor, _PRODUCER))


def field_of(tensor: Tensor, overwritten: dict[int, Tensor]) -> ReceptiveField | None:
    """Return a tensor's receptive field; None if the image has no effect on it."""
    field: ReceptiveField | None = getattr(tensor, _FIELD, None)
    if overwritten:
        writer = overwritten.get(tensor.untyped_storage()._cdata)
        if writer is not None and writer is not tensor:
            fields = [s for s in (field, getattr(writer, _FIELD)) if s is not None]
            return bound_all(fields, tensor.shape)
    return field


def layers_of(
    rows: Sequence[LayerRecord], saved: Mapping[Any, int] | None = None
) -> tuple[Layer, ...]:
    """Convert recorded rows to layers; skip rows that do not depend on the image.

    Args:
        rows: Rows in the order they ran.
        saved: Bytes per image saved for the backward pass, by row.
    """
    layers = []
    name_counts: dict[str, int] = {}
    for row in rows:
        depends = row.receptive_field is not None or row.weights
        if row.module is None and not (row.operations and depends):
            continue
        if row.module is not None:
            name, kind = row.name, type(row.module).__name__
        else:
            kind = functional_kind(row.operations)
            name = f"{row.name}.({kind})".lstrip(".")
        name_counts[name] = name_counts.get(name, 0) + 1
        if name_counts[name] > 1:
            name = f"{name} #{name_counts[name]}"
        layers.append(
            Layer(
                name=name or "(model)",
                kind=kind,
                output=None if row.output is None else row.output[1:],
                parameters=sum(w.numel() for w in row.weights),
                trainable=sum(w.numel() for w in row.weights if w.requires_grad),
                operations=tuple(row.operations),
                activation=row.activation,
                saved=None if saved is None else saved.get(row.key, 0),
                receptive_field=row.receptive_field,
                key=row.key,
            )
        )
    return tuple(layers)
