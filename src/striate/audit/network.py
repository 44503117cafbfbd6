"""Audit a network from shapes alone: layers, parameters, MACs and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from striate.audit.fused_calls import FusedCalls
from striate.audit.layer import Layer, shape_text
from striate.audit.meta_device import MetaMode, lazy_copy, to_meta
from striate.audit.quantized import is_quantized
from striate.audit.receptive_field_tracker import input_field
from striate.audit.recorder import LayerRecord, Recorder, layers_of, set_field
from striate.audit.training_memory import (
    TrainingMemory,
    measure_training_step,
    tensor_bytes,
)
from striate.core.errors import GeometryError
from striate.core.format import count_text
from striate.core.hooks import (
    model_restored,
    parameters_and_buffers,
    refuse_scripted,
    set_evaluation_mode,
    trace_modules,
    unwrap_compiled,
)
from striate.core.layer_names import named_layers

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Result of `audit`: layers in execution order, total parameters and memory."""

    shape: Shape  # (channels, height, width) of one image
    layers: tuple[Layer, ...]  # all layers that run in evaluation mode
    # Layers with weights that do not run in evaluation mode.
    unused_layers: tuple[Layer, ...] = ()
    parameters: int  # number of parameters, trainable or not
    trainable: int  # number of trainable parameters
    weights: int  # bytes of parameters and buffers
    peak: int  # peak bytes of the activations of one image in evaluation mode
    # Memory of a training step; None if it could not be measured.
    memory: TrainingMemory | None = None
    memory_error: str = ""  # the reason why the training step could not be measured
    real: bool = False  # whether one image was computed with real values
    # Last output of each container module, by name.
    container_outputs: dict[str, LayerRecord]

    @cached_property
    def macs(self) -> int:
        """Multiply-adds (MACs) for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def uncounted_ops(self) -> dict[str, int]:
        """Operations without a MAC rule, with the number of times each ran."""
        result: dict[str, int] = {}
        for layer in self.layers:
            for operation in layer.operations:
                if operation.macs is None:
                    result[operation.name] = result.get(operation.name, 0) + 1
        return result


class ForwardError(GeometryError):
    """Error of a failed forward pass; its attribute `audit` lists the layers that ran.

    `data_dependent`: the control flow depends on tensor values.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str,
        fix: str,
        audit: Audit,
        data_dependent: bool = False,
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.audit = audit
        self.data_dependent = data_dependent


def audit(
    model: nn.Module,  # any network
    shape: Shape,  # (channels, height, width) of one image
    *,
    batch_size: int = 32,  # images per training step, for the memory estimate
    # Optimizer of the training step: `sgd`, `adam` or `adamw`.
    optimizer: str = "adamw",
    # Compute one image of zeros with real values, for data-dependent control flow; the
    # training step is then not measured.
    real: bool = False,
) -> Audit:
    """Return layers, parameters, MACs and memory of a network.

    The network runs on the meta device: nothing is computed or allocated, and the
    network stays unchanged, its random state included.

    Raises:
        ForwardError: The network rejects images of this shape, or its control flow
            depends on values; `audit` contains the layers that ran.

    Example:
        >>> result = audit(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 8, 8))
        >>> result.parameters, result.macs, result.layers[0].output
        (56, 1944, (2, 6, 6))
    """
    try:
        return _audit(model, shape, batch_size, optimizer, real)
    except ForwardError as error:
        if not error.audit.real:
            raise
        with suppress(ForwardError):  # perhaps only an image of zeros is refused
            return _audit(model, shape, batch_size, optimizer, real, noise=True)
        raise


def _audit(
    model: nn.Module,
    shape: Shape,
    batch_size: int,
    optimizer: str,
    real: bool,
    noise: bool = False,
) -> Audit:
    model = unwrap_compiled(model)
    refuse_scripted(model, "a summary")
    quantized = any(map(is_quantized, model.modules()))
    real = real or quantized  # no rules for the meta device
    originals = parameters_and_buffers(model)
    modes = [(module, module.training) for module in model.modules()]
    with (
        torch.inference_mode(False),
        model_restored(model, _copy if real else to_meta),
        FusedCalls(),
    ):
        _uncompile(model)
        set_evaluation_mode(model)
        replaced = parameters_and_buffers(model)
        replacements = _replacements(originals, replaced)
        if any(map(is_lazy, (*replaced[0], *replaced[1]))):
            _materialize(model, shape, real)
        weights, buffers = ([t for t in each if not is_lazy(t)] for each in replaced)
        recorder = Recorder(model, weights, buffers)
        weights += recorder.packed_weights
        image = _image(1, shape, weights, _device(weights) if real else "meta")
        image = image + _noise(image) if noise else image
        evaluation = _Evaluation(
            model=model,
            weights=weights,
            buffers=buffers,
            shape=shape,
            recorder=recorder,
            real=real,
        )
        mode = MetaMode(recorder.record_operation, real=real, replacements=replacements)
        stopped = _evaluate(model, image, recorder, mode)
        if stopped is not None:
            recorder.drop_unfinished()
            error = _forward_error(stopped, recorder.location, evaluation.audit())
            raise error from stopped
        if real:
            reason = "with real=True only the forward pass of one image runs"
            if quantized:
                reason = "a quantized network is not trained"
            return evaluation.audit(memory_error=reason)
        for module, training in modes:  # as the user has set them
            module.training = training
        if not model.training:
            model.train()
        batch = _image(batch_size, shape, weights, "meta")
        try:
            step = measure_training_step(model, weights, buffers, batch, optimizer)
        except Exception as error:  # a foreign forward may raise anything
            return evaluation.audit(memory_error=first_line(error))
        return evaluation.audit(memory=step[0], saved=step[1])


def _noise(image: Tensor) -> Tensor:
    """Return random values of the shape of an image, always the same."""
    draw = torch.Generator().manual_seed(0)
    return torch.rand(image.shape, generator=draw).to(image.device)


def _uncompile(model: nn.Module) -> None:
    """Replace the modules that `torch.compile` returned by what it was given."""
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = unwrap_compiled(child)


Weights = tuple[list[nn.Parameter], list[Tensor]]


def _replacements(originals: Weights, replaced: Weights) -> dict[int, Tensor]:
    before, after = (*originals[0], *originals[1]), (*replaced[0], *replaced[1])
    return {id(a): b for a, b in zip(before, after, strict=True)}


def _materialize(model: nn.Module, shape: Shape, real: bool) -> None:
    """Run lazy layers once, so that their weights get a shape; errors come later."""
    image = torch.zeros(1, *shape, device="cpu" if real else "meta")
    with torch.no_grad(), suppress(Exception):
        if real:
            model(image)
        else:
            with MetaMode(lambda func, args, out: None):
                model(image)


def _device(weights: Sequence[Tensor]) -> str:
    return next((weight.device.type for weight in weights), "cpu")


def _image(count: int, shape: Shape, weights: Sequence[Tensor], device: str) -> Tensor:
    """Return a batch of images filled with zeros, in the dtype of the weights."""
    types = (w.dtype for w in weights if w.is_floating_point())
    return torch.zeros(count, *shape, dtype=next(types, torch.float32), device=device)


def _copy(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        return lazy_copy(tensor, tensor.device)
    copy = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copy, tensor.requires_grad)
    return copy


def _evaluate(
    model: nn.Module, image: Tensor, recorder: Recorder, mode: MetaMode
) -> Exception | None:
    """Run the forward pass of an image; return its error, or None."""
    recorder.live_memory.enter(image)
    set_field(image, input_field(image.shape))
    hooked = trace_modules(model, enter=recorder.enter, leave=recorder.leave)
    with torch.no_grad(), hooked, mode:
        try:
            model(image)
        except Exception as error:  # a foreign forward may raise anything
            return error
    return None


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """Result of the forward pass in eval mode, before the training step is measured."""

    model: nn.Module
    weights: Sequence[Tensor]
    buffers: Sequence[Tensor]
    shape: Shape
    recorder: Recorder
    real: bool

    def audit(
        self,
        memory: TrainingMemory | None = None,
        saved: Mapping[Any, int] | None = None,
        memory_error: str = "",
    ) -> Audit:
        weights, buffers, per_image = self.weights, self.buffers, None
        if memory is not None and saved is not None:
            per_image = {key: size // memory.batch_size for key, size in saved.items()}
        return Audit(
            shape=self.shape,
            layers=layers_of(self.recorder.rows, per_image),
            unused_layers=_idle(self.model, self.recorder),
            parameters=sum(w.numel() for w in weights),
            trainable=sum(w.numel() for w in weights if w.requires_grad),
            weights=sum(tensor_bytes(t) for t in (*weights, *buffers)),
            peak=self.recorder.live_memory.peak,
            memory=memory,
            memory_error=memory_error,
            real=self.real,
            container_outputs=self.recorder.container_outputs,
        )


def _idle(model: nn.Module, recorder: Recorder) -> tuple[Layer, ...]:
    unused = {id(w) for w in recorder.unused}
    layers: list[Layer] = []
    if not unused:
        return ()
    for name, module in named_layers(model):
        own = [w for w in module.parameters(recurse=False) if id(w) in unused]
        unused -= {id(w) for w in own}
        if own:
            layer = Layer(
                name=name or "(model)",
                kind=type(module).__name__,
                output=None,
                parameters=sum(w.numel() for w in own),
                trainable=sum(w.numel() for w in own if w.requires_grad),
            )
            layers.append(layer)
    return tuple(layers)


def first_line(error: Exception) -> str:
    r"""Return the first line of an error message; if empty, the error's class name.

    Example:
        >>> first_line(ValueError("too small\nby far")), first_line(KeyError())
        ('too small', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_MATMUL = re.compile(r"got \[(?:\d+, )*(\d+)\] X \[(\d+), \d+\]")


def _linear_mismatch(error: Exception) -> str:
    """Describe a linear layer's wrong number of input features; "" for other errors."""
    sides = _MATMUL.search(str(error))
    if sides is None:
        return ""
    return (
        f" the layer expects {count_text(int(sides[2]), 'feature')} and got "
        f"{int(sides[1]):,}"
    )


_DATA_DEPENDENT = (
    *(
        "meta tensor",
        "meta device",
        "_local_scalar_dense",
        "data-dependent",
        "'Meta'",
        "nonzero",
    ),
)


def _forward_error(
    error: Exception, location: tuple[str, str, tuple[int, ...] | None], result: Audit
) -> ForwardError:
    name, kind, shape = location
    where = name or "forward() of the model"
    got = f" {kind} got {shape_text(shape)}:" if name and shape else ""
    signs = [word for word in _DATA_DEPENDENT if word in str(error)]
    data_dependent = bool(signs) and not result.real
    if data_dependent:
        what = f"control flow depends on tensor values: {first_line(error)}"
        fix = "add --real (real=True): run one image of zeros with real values"
    else:
        size = shape_text(result.shape)
        reason = _linear_mismatch(error) or f"{got} {first_line(error)}"
        what = f"the network does not accept images of {size}:{reason}"
        fix = "use another image size or another number of channels"
    return ForwardError(
        what, where=where, fix=fix, audit=result, data_dependent=data_dependent
    )
