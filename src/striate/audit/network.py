"""What a network is: layers, totals, memory, found without running it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from striate.audit.layer import Layer, shape_text
from striate.audit.memory import Memory, size_of, training_step
from striate.audit.meta_mode import Ghost, ghost_of
from striate.audit.recorder import Recorder, Row, layers_of, show
from striate.audit.rf_tracker import of_images
from striate.core.errors import GeometryError
from striate.core.hooks import model_restored, parameters_and_buffers, trace_modules

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A network's layers in the order they run, and its totals.

    Args:
        shape: (channels, height, width) of one image.
        layers: Everything that runs in evaluation.
        idle: Layers with weights that evaluation does not touch.
        parameters: All numbers of the network, trainable or not.
        trainable: Those of them that learn.
        weights: Bytes of parameters and buffers.
        peak: Bytes of one image's activations alive at once in evaluation.
        memory: A training step's; None where it could not run on shapes.
        untrained: Why not.
        real: One image was computed for real.
    """

    shape: Shape
    layers: tuple[Layer, ...]
    idle: tuple[Layer, ...] = ()
    parameters: int
    trainable: int
    weights: int
    peak: int
    memory: Memory | None = None
    untrained: str = ""
    real: bool = False
    ends: dict[str, Row]

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def uncounted(self) -> dict[str, int]:
        """Operations without a rule for multiply-adds, and how often they ran."""
        found: dict[str, int] = {}
        for layer in self.layers:
            for operation in layer.operations:
                if operation.macs is None:
                    found[operation.name] = found.get(operation.name, 0) + 1
        return found


class UnfinishedError(GeometryError):
    """A forward pass that stopped; holds what had run until then.

    Args:
        what: What happened, and in which layer.
        where: The layer.
        fix: A way out.
        audit: The layers that ran.
        looks: It stopped because it looks at values, not for its size.
    """

    def __init__(
        self, what: str, *, where: str, fix: str, audit: Audit, looks: bool = False
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.audit = audit
        self.looks = looks


def audit(
    model: nn.Module,
    shape: Shape,
    *,
    batch_size: int = 32,
    optimizer: str = "adamw",
    real: bool = False,
) -> Audit:
    """Return what a network is, for images of one shape.

    The network runs on shapes, its weights represented by ghosts: nothing is computed
    or allocated, and nothing of it changes, its random state included.

    Args:
        model: Any network.
        shape: (channels, height, width) of one image.
        batch_size: Images in the training step whose memory is wanted.
        optimizer: Whose state that step keeps: `sgd`, `adam` or `adamw`.
        real: Compute one image of zeros for real, where the network's way depends
            on values; the training step is then left out.

    Raises:
        UnfinishedError: The network refuses an image of this shape, or looks at
            values; holds the layers that ran.

    Example:
        >>> found = audit(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 8, 8))
        >>> found.parameters, found.macs, found.layers[0].output
        (56, 1944, (2, 6, 6))
    """
    tensors = parameters_and_buffers(model)
    if any(is_lazy(tensor) for group in tensors for tensor in group):
        raise _lazy(model)
    modes = [(module, module.training) for module in model.modules()]
    with model_restored(model, _copy if real else ghost_of):
        weights, buffers = parameters_and_buffers(model)
        recorder = Recorder(model, weights, buffers)
        image = _image(1, shape, weights, "cpu" if real else "meta")
        stopped = _evaluate(model, image, recorder, real)
        known = _Known(
            model=model,
            weights=weights,
            buffers=buffers,
            shape=shape,
            recorder=recorder,
            real=real,
        )
        if stopped is not None:
            recorder.abandon()
            raise _unfinished(stopped, recorder.place, known.audit()) from stopped
        if real:
            return known.audit(untrained="one image was computed for real, no step")
        _set_training(model, modes)
        batch = _image(batch_size, shape, weights, "meta")
        try:
            memory, saved = training_step(model, weights, buffers, batch, optimizer)
        except Exception as error:  # a foreign forward may raise anything
            return known.audit(untrained=reason_of(error))
        return known.audit(memory=memory, saved=saved)


def _set_training(model: nn.Module, modes: Sequence[tuple[nn.Module, bool]]) -> None:
    """Train as the user would: frozen parts of a training network stay frozen."""
    for module, mode in modes:
        module.training = mode
    if not model.training:
        model.train()


def _image(count: int, shape: Shape, weights: Sequence[Tensor], device: str) -> Tensor:
    """Return zeros of the type of number that the network computes in."""
    types = (w.dtype for w in weights if w.is_floating_point())
    return torch.zeros(count, *shape, dtype=next(types, torch.float32), device=device)


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copy, tensor.requires_grad)
    return copy


def _lazy(model: nn.Module) -> GeometryError:
    named = (*model.named_parameters(), *model.named_buffers())
    name = next(name for name, tensor in named if is_lazy(tensor))
    what = f"{name} has no shape yet: the layer is lazy"
    fix = "run the network once on an image, then summarize it"
    return GeometryError(what, where=name, fix=fix)


def _evaluate(
    model: nn.Module, image: Tensor, recorder: Recorder, real: bool
) -> Exception | None:
    """Run one image in evaluation mode; return what stopped it, if anything did."""
    model.eval()
    recorder.ledger.enter(image)
    show(image, of_images(image.shape))
    watched = trace_modules(model, enter=recorder.enter, leave=recorder.leave)
    with torch.no_grad(), watched, Ghost(recorder.see, real=real):
        try:
            model(image)
        except Exception as error:  # a foreign forward may raise anything
            return error
    return None


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What an evaluation has shown, to be told with or without a training step."""

    model: nn.Module
    weights: Sequence[Tensor]
    buffers: Sequence[Tensor]
    shape: Shape
    recorder: Recorder
    real: bool

    def audit(
        self,
        memory: Memory | None = None,
        saved: Mapping[Any, int] | None = None,
        untrained: str = "",
    ) -> Audit:
        weights, buffers = self.weights, self.buffers
        per_image = (
            None
            if memory is None or saved is None
            else {key: size // memory.batch_size for key, size in saved.items()}
        )
        return Audit(
            shape=self.shape,
            layers=layers_of(self.recorder.rows, per_image),
            idle=_idle(self.model, self.recorder),
            parameters=sum(w.numel() for w in weights),
            trainable=sum(w.numel() for w in weights if w.requires_grad),
            weights=sum(size_of(t) for t in (*weights, *buffers)),
            peak=self.recorder.ledger.peak,
            memory=memory,
            untrained=untrained,
            real=self.real,
            ends=self.recorder.ends,
        )


def _idle(model: nn.Module, recorder: Recorder) -> tuple[Layer, ...]:
    unused = {id(w) for w in recorder.unused}
    layers: list[Layer] = []
    if not unused:
        return ()
    for name, module in model.named_modules():
        own = [w for w in module.parameters(recurse=False) if id(w) in unused]
        unused -= {id(w) for w in own}
        if own:
            layers.append(
                Layer(
                    name=name or "(model)",
                    kind=type(module).__name__,
                    output=None,
                    parameters=sum(w.numel() for w in own),
                    trainable=sum(w.numel() for w in own if w.requires_grad),
                )
            )
    return tuple(layers)


def reason_of(error: Exception) -> str:
    r"""Return the first line of what an error says, or its kind.

    Example:
        >>> reason_of(ValueError("too small\nby far")), reason_of(KeyError())
        ('too small', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_PRODUCT = re.compile(r"got \[(?:\d+, )*(\d+)\] X \[(\d+), \d+\]")


def _product_misfit(error: Exception) -> str:
    """Say in numbers that a flattened map does not fit a dense layer."""
    sides = _PRODUCT.search(str(error))
    if sides is None:
        return ""
    return f" the layer takes {int(sides[2]):,} numbers and got {int(sides[1]):,}"


_LOOKS = ("meta tensor", "_local_scalar_dense", "data-dependent", "'Meta'", "nonzero")


def _unfinished(
    error: Exception, place: tuple[str, str, tuple[int, ...] | None], found: Audit
) -> UnfinishedError:
    name, kind, given = place
    where = name or "the network's own forward"
    got = f" {kind} got {shape_text(given)}:" if name and given else ""
    looks = not found.real and any(word in str(error) for word in _LOOKS)
    if looks:
        what = f"the way on depends on values, and shapes have none: {reason_of(error)}"
        fix = "add --real (real=True): one image of zeros is then computed for real"
    else:
        size = shape_text(found.shape)
        reason = _product_misfit(error) or f"{got} {reason_of(error)}"
        what = f"the network cannot take images of {size}:{reason}"
        fix = "give a size or channels that fit"
    return UnfinishedError(what, where=where, fix=fix, audit=found, looks=looks)
