"""Conversion of a network to a `NetworkGraph`: a trace of its torch operations."""

from __future__ import annotations

from itertools import zip_longest

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError
from striate.core.hooks import unwrap_compiled
from striate.exporters.aten_registry import StepArguments
from striate.exporters.aten_rules import ATEN_RULES
from striate.exporters.graph import BATCH, NetworkGraph
from striate.exporters.graph_builder import (
    GraphBuilder,
    RepeatedRow,
    UnsupportedOperationError,
    merged_arguments,
    merged_shape,
)
from striate.interpret.trace import Trace, TraceStep, record_trace

BATCH_SIZES = (2, 3)  # of the two traces; what differs depends on the batch size


def trace_graph(model: nn.Module, input_shape: tuple[int, int, int]) -> NetworkGraph:
    """Return the graph of a network for images of one shape and any batch size.

    Args:
        model: Any network in float32; it is traced in evaluation mode and unchanged.
        input_shape: (channels, height, width) of an input image.

    Raises:
        UnsupportedOperationError: An operation has no rule, or the operations depend
            on the values of the image.
        GeometryError: The network rejects the images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> graph = trace_graph(model, (1, 4, 4))
        >>> [node.kind for node in graph.nodes], graph.shapes["logits"]
        (['conv', 'relu', 'reshape'], (-1, 8))
    """
    model = unwrap_compiled(model)
    _check_dtype(model)
    generator = torch.Generator().manual_seed(0)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = [
        torch.rand((size, *input_shape), generator=generator).to(device)
        for size in BATCH_SIZES
    ]
    traces = []
    for seed, x in enumerate(images):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # random constants differ between the traces
            traces.append(record_trace(model, x))
    for trace in traces:
        _check_steps(trace)
    return _graph_of(model, traces[0], traces[1])


def _check_dtype(model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        if weight.dtype != torch.float32:
            what = f"weight {name} has the type {weight.dtype}, export needs float32"
            raise UnsupportedOperationError(what, where=name, fix="use model.float()")


def _check_steps(trace: Trace) -> None:
    if not trace.data_dependent:
        return
    what = (
        "the network reads values of the image as Python numbers (.item(), or `if` on "
        "a tensor), so its operations depend on the image"
    )
    fix = "write the choice with torch operations, such as torch.where"
    raise UnsupportedOperationError(what, where="forward() of the network", fix=fix)


def _graph_of(model: nn.Module, trace: Trace, other: Trace) -> NetworkGraph:
    builder = GraphBuilder(model, (trace.steps[0], other.steps[0]))
    pairs = list(zip_longest(trace.steps, other.steps))[1:]
    for number, (step, twin) in enumerate(pairs, start=1):
        builder.layer = step.module if step else twin.module
        if step is None or twin is None or step.name != twin.name:
            raise builder.error("the operations depend on the batch size")
        _add_step(builder, step, twin, number)
    return builder.finish(trace.output)


def _add_step(
    builder: GraphBuilder, step: TraceStep, twin: TraceStep, number: int
) -> None:
    rule = ATEN_RULES.get(step.name)
    if rule is None:
        raise builder.error(f"there is no export of the operation {step.name!r}")
    try:
        args, kwargs = merged_arguments(
            (step.args, dict(step.kwargs)), (twin.args, dict(twin.kwargs))
        )
    except ValueError as error:
        what = f"operation {step.name!r} has {error}"
        raise builder.error(what) from error
    args = tuple(_expanded(builder, argument) for argument in args)
    shapes = [
        merged_shape(a, b) for a, b in zip(step.results, twin.results, strict=True)
    ]
    try:
        rule(builder, StepArguments(step, number, args, kwargs, shapes))
    except GeometryError as error:
        raise builder.error(f"operation {step.name!r}: {error.what}") from error


def _expanded(builder: GraphBuilder, argument: object) -> object:
    """Return the name of a constant that is repeated for each image of the batch."""
    if isinstance(argument, list):
        return [_expanded(builder, item) for item in argument]
    if not isinstance(argument, RepeatedRow):
        return argument
    row: Tensor = argument.as_subclass(Tensor)
    shape = (BATCH, *row.shape[1:])
    return builder.add("expand", [row], shape, shape=list(shape))
