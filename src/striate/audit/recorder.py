"""Writes down a forward pass: every operation, under the layer it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from striate.audit.layer import Layer, Operation, Shape, functional_kind
from striate.audit.live_memory import LiveMemory
from striate.audit.macs import count
from striate.audit.meta_mode import tensors_in
from striate.audit.receptive_field import follow, is_local
from striate.audit.rf_tracker import Sight, blur_all
from striate.audit.window_args import read_windows

_SIGHT = "_striate_sight"
_MAKER = "_striate_maker"
IMAGE = -1  # the maker of what no operation made
_SILENT = {"detach", "lift_fresh", "alias"}


class Row:
    """A layer while it runs."""

    __slots__ = (
        "activation",
        "key",
        "module",
        "operations",
        "output",
        "place",
        "sight",
        "weights",
    )

    def __init__(self, place: str, module: nn.Module | None, key: tuple[Any, ...]):
        self.place = place
        self.module = module
        self.key = key
        self.operations: list[Operation] = []
        self.weights: list[Tensor] = []
        self.output: Shape | None = None
        self.sight: Sight | None = None
        self.activation = 0


class Frame:
    """A module's call: the layer it writes to, and how many it has written."""

    __slots__ = ("_shape", "call", "groups", "module", "name", "row", "whole")

    def __init__(
        self, name: str, module: nn.Module, call: int, inputs: object = ()
    ) -> None:
        first = inputs[0] if isinstance(inputs, tuple) and inputs else None
        self._shape = first.shape if isinstance(first, Tensor) else None
        self.name = name
        self.module = module
        self.call = call
        self.whole = not module._modules or any(
            own is not None for own in module._parameters.values()
        )
        self.row: Row | None = None
        self.groups = 0

    @property
    def given(self) -> Shape | None:
        """Return the shape of one image of its first input."""
        return None if self._shape is None else tuple(self._shape[1:])


class Recorder:
    """Writes down a pass: which rows, in order, did what.

    A module without modules inside, or with weights of its own, is one row. What a
    container computes itself between its children's calls is a row too, so that every
    operation stands in exactly one.

    Args:
        model: The network.
        weights: Its parameters.
        buffers: Its buffers.
        places_only: Count live bytes and know the row that is running; no more.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Sequence[Tensor],
        buffers: Sequence[Tensor],
        *,
        places_only: bool = False,
    ) -> None:
        self._places_only = places_only
        self.rows: list[Row] = []
        self.ledger = LiveMemory()
        self.ends: dict[str, Row] = {}  # what each container gave out last
        self._stack = [Frame("", model, 0)]
        self._calls: dict[str, int] = {}
        self._count = 0
        self._unused = {id(weight): weight for weight in weights}
        self._tainted: dict[int, Tensor] = {}
        for tensor in (*weights, *buffers):
            self.ledger.ignore(tensor)

    @property
    def place(self) -> tuple[str, str, Shape | None]:
        """Return name, kind and input shape of the innermost module that runs."""
        frame = self._stack[-1]
        return frame.name, type(frame.module).__name__, frame.given

    @property
    def unused(self) -> list[Tensor]:
        """Return the weights that no operation has touched."""
        return list(self._unused.values())

    def enter(self, name: str, module: nn.Module, inputs: object) -> None:
        """Begin a module."""
        self._calls[name] = self._calls.get(name, 0) + 1
        frame = Frame(name, module, self._calls[name], inputs)
        self._stack.append(frame)
        if frame.whole:
            self._begin(frame)

    def leave(self, name: str, module: nn.Module, output: object) -> None:
        """End a module, and those inside it that never ended."""
        frame = self._stack.pop()
        while frame.module is not module:
            frame = self._stack.pop()
        tensors = tensors_in(output)
        if not tensors:
            return
        if frame.whole and frame.row is not None:
            row = frame.row
            if module._modules:  # it ends after what is inside it
                self.rows.remove(row)
                self.rows.append(row)
        else:
            row = self.ends.setdefault(name, Row(name, module, ()))
        row.output = tuple(tensors[0].shape)
        row.sight = sight_of(tensors[0], self._tainted)

    def _begin(self, frame: Frame) -> Row:
        frame.groups += 1
        module = frame.module if frame.whole else None
        key = (frame.name, frame.call, frame.groups)
        row = frame.row = Row(frame.name, module, key)
        self.rows.append(row)
        return row

    def abandon(self) -> None:
        """Strike out the layers that a failure left unfinished; they did not run."""
        for row in [r for r in self.rows if r.module is not None and r.output is None]:
            self.rows.remove(row)
            self._unused.update((id(weight), weight) for weight in row.weights)

    def current(self) -> Row:
        """Return the row that an operation belongs to now."""
        frame = self._stack[-1]
        if frame.row is None or not (frame.whole or frame.row is self.rows[-1]):
            return self._begin(frame)
        return frame.row

    def see(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        """Write down one operation."""
        if self._places_only:
            self._see_place(func, args, out)
            return
        name = func.overloadpacket.__name__
        given, made = tensors_in(args), tensors_in(out)
        if name in _SILENT and given:
            same = sight_of(given[0], self._tainted)
            if same is not None:
                show(made[0], same, maker_of(given[0]))
            return
        if not made:
            return
        row = self.current()
        sources = []
        for place, tensor in enumerate(given):
            weight = self._unused.pop(id(tensor), None)
            if weight is not None:
                row.weights.append(weight)
            sight = sight_of(tensor, self._tainted)
            if sight is not None:
                sources.append((place, sight))
        makers = tuple((place, maker_of(given[place])) for place, _ in sources)
        sights = self._follow(func, args, sources, made) if sources else []
        self._account(row, made)
        shape = tuple(made[0].shape)
        row.operations.append(
            Operation(
                name=name,
                inputs=tuple([tuple(t.shape) for t in given]),
                output=shape,
                macs=count(func, args, shape),
                windows=read_windows(func, args),
                given=sources[0][1] if sources else None,
                sight=sights[0] if sights else None,
                number=self._count,
                makers=makers,
                local=is_local(func),
            )
        )
        for tensor in made if sources else ():
            setattr(tensor, _MAKER, self._count)
        self._count += 1

    def _see_place(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        if func.overloadpacket.__name__ in _SILENT and tensors_in(args):
            return
        made = tensors_in(out)
        if made:
            self.current()
        for tensor in made:
            self.ledger.enter(tensor)

    def _follow(
        self,
        func: Any,
        args: tuple[Any, ...],
        sources: Sequence[tuple[int, Sight]],
        made: Sequence[Tensor],
    ) -> list[Sight]:
        sights: list[Sight] = []
        for part, tensor in enumerate(made):
            if not tensor.numel():  # batch norm's statistics, and such
                continue
            if tensor.dim() != made[0].dim():
                sight = blur_all([sight for _, sight in sources], tensor.shape)
            else:
                sight = follow(func, args, sources, tensor.shape, part)
            before = getattr(tensor, _SIGHT, None)
            setattr(tensor, _SIGHT, sight)
            if before is not sight and _part_of_another(tensor, args):
                self._tainted[tensor.untyped_storage()._cdata] = tensor
            sights.append(sight)
        return sights

    def _account(self, row: Row, made: Sequence[Tensor]) -> None:
        added = [self.ledger.enter(tensor) for tensor in made]
        if added[0] or not row.operations:  # else a view, or written in place
            row.activation = added[0]
        if row.module is None:
            row.output = tuple(made[0].shape)
            row.sight = getattr(made[0], _SIGHT, None)


def _part_of_another(tensor: Tensor, args: tuple[Any, ...]) -> bool:
    """Tell a write into a view: what it is a view of has changed unseen."""
    return bool(args) and tensor is args[0] and tensor._base is not None


def show(tensor: Tensor, sight: Sight, maker: int = IMAGE) -> None:
    """Say what a tensor's units see, as of the input."""
    setattr(tensor, _SIGHT, sight)
    setattr(tensor, _MAKER, maker)


def maker_of(tensor: Tensor) -> int:
    """Return the number of the operation that made a tensor of the image."""
    return int(getattr(tensor, _MAKER))


def sight_of(tensor: Tensor, tainted: dict[int, Tensor]) -> Sight | None:
    """Return what a tensor's units see; None if it does not depend on the image."""
    sight: Sight | None = getattr(tensor, _SIGHT, None)
    if tainted:
        writer = tainted.get(tensor.untyped_storage()._cdata)
        if writer is not None and writer is not tensor:
            both = [s for s in (sight, getattr(writer, _SIGHT)) if s is not None]
            return blur_all(both, tensor.shape)
    return sight


def layers_of(
    rows: Sequence[Row], saved: Mapping[Any, int] | None = None
) -> tuple[Layer, ...]:
    """Return finished rows as layers; those that touch nothing are left out.

    Args:
        rows: In the order they ran.
        saved: Bytes an image that training keeps, by row.
    """
    layers = []
    seen: dict[str, int] = {}
    for row in rows:
        if row.module is None and not _matters(row):
            continue
        kind = type(row.module).__name__ if row.module is not None else _kind(row)
        name = (
            row.place if row.module is not None else f"{row.place}.({kind})".lstrip(".")
        )
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name} #{seen[name]}"
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
                sight=row.sight,
                key=row.key,
            )
        )
    return tuple(layers)


def _kind(row: Row) -> str:
    return functional_kind(row.operations)


def _matters(row: Row) -> bool:
    return bool(row.operations) and (row.sight is not None or bool(row.weights))
