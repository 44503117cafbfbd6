"""Advice on parameters and MACs: useless biases, large dense heads, bottlenecks."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from striate.audit.advice import Advice, DesignContext, join_names
from striate.audit.findings import last_feature_map
from striate.audit.layer import Layer, Operation
from striate.core.format import count_text

MAX_HEAD_SHARE = 0.5  # share of all parameters in dense layers
MIN_SAVING = 0.3  # share of all MACs that bottlenecks must save to be proposed
MIN_LAYER_SHARE = 0.05  # share of all MACs: smaller layers get no bottleneck


def redundant_bias(context: DesignContext) -> Iterator[Advice]:
    """Find layers whose bias has no effect because a batch norm follows."""
    wide = [
        (layer, operation.output[1])
        for layer, operation in context.operations
        if _has_bias(operation) and _into_batch_norm(context, operation)
    ]
    if not wide:
        return
    names = [layer.name for layer, _ in wide]
    total, count = context.audit.parameters, sum(n for _, n in wide)
    verb, its = ("have", "their") if len(wide) > 1 else ("has", "its")
    yield Advice(
        check="redundant-bias",
        layer=names[0],
        finding=f"{join_names(names)} {verb} a bias before a batch norm, which "
        f"cancels it: {count_text(count, 'parameter')} without effect.",
        change=f"Set bias=False ({its} batch norm has its own shift): "
        f"{total - count:,} parameters instead of {total:,}, same outputs.",
        before=total,
        after=total - count,
        unit="parameters",
    )


def _has_bias(operation: Operation) -> bool:
    if operation.name == "addmm":
        return True
    shapes = operation.inputs
    bias = len(shapes) == 3 and shapes[2] == operation.output[1:2]
    return operation.name == "convolution" and bias


def _into_batch_norm(context: DesignContext, operation: Operation) -> bool:
    users = context.usage.users.get(operation.number, [])
    return bool(users) and all("batch_norm" in user.name for user in users)


def heavy_head(context: DesignContext) -> Iterator[Advice]:
    """Find dense layers after a feature map that contain most of the parameters."""
    last = last_feature_map(context.audit)
    if last is None or last.output is None:
        return
    layers = context.audit.layers
    dense = [x for x in layers[layers.index(last) + 1 :] if _is_dense(x)]
    if not dense or _inputs(dense[0]) <= last.output[0]:
        return  # the head follows global average pooling already
    dense_parameters = sum(layer.parameters for layer in dense)
    total = context.audit.parameters
    if dense_parameters <= MAX_HEAD_SHARE * total:
        return
    channels, classes = last.output[0], dense[-1].operations[-1].output[-1]
    after = total - dense_parameters + (channels + 1) * classes
    if after >= total:
        return
    verb = "contain" if len(dense) > 1 else "contains"
    yield Advice(
        check="heavy-head",
        layer=dense[0].name,
        finding=f"{join_names([x.name for x in dense])} {verb} {dense_parameters:,} of "
        f"{count_text(total, 'parameter')} ({100 * dense_parameters / total:.1f} %).",
        change=f"Global average pooling and one dense layer {channels:,} → {classes:,} "
        f"would reduce the network to {after:,} parameters.",
        before=total,
        after=after,
        unit="parameters",
    )


def _is_dense(layer: Layer) -> bool:
    """Return whether a layer is dense and takes one vector per image, not tokens."""
    products = [o for o in layer.operations if o.name in ("addmm", "mm")]
    vector = layer.output is not None and len(layer.output) == 1
    return layer.parameters > 0 and bool(products) and vector


def _inputs(layer: Layer) -> int:
    """Return the number of input features of a dense layer."""
    products = (o for o in layer.operations if o.name in ("addmm", "mm"))
    return next(shape for shape in next(products).inputs if len(shape) == 2)[1]


def bottlenecks(context: DesignContext) -> Iterator[Advice]:
    """Find convolutions that need fewer MACs with a 1×1 bottleneck before them.

    The 1×1 convolution has C_in/4 output channels, but not more than C_out/2
    (He et al. 2016, figure 5; Szegedy et al. 2015, figure 2).
    """
    total = context.audit.macs
    wide = []
    for layer, operation in context.operations:
        macs = operation.macs or 0
        if macs >= MIN_LAYER_SHARE * total and _is_wide(context, operation):
            wide.append((layer.name, macs, _bottleneck_macs(operation)))
    saved = sum(before - after for _, before, after in wide)
    if saved <= MIN_SAVING * total:
        return
    wide.sort(key=lambda each: each[2] - each[1])
    after = total - saved
    part = sum(macs for _, macs, _ in wide)
    share, verb = 100 * part / total, "do" if len(wide) > 1 else "does"
    yield Advice(
        check="bottleneck",
        layer=wide[0][0],
        finding=f"{join_names([name for name, _, _ in wide])} {verb} {share:.0f} % of "
        f"the computation: {part:,} of {total:,} multiply-adds.",
        change="A 1×1 convolution before each layer, with a quarter of the channels, "
        f"would reduce the network to {after:,} multiply-adds "
        f"({100 * after / total:.1f} %).",
        before=total,
        after=after,
        unit="multiply-adds",
    )


def _is_wide(context: DesignContext, operation: Operation) -> bool:
    window = operation.window
    if window is None or window.pooling or window.transposed or window.groups > 1:
        return False
    narrow = _bottleneck_width(operation) < 1 or prod(window.kernel) == 1
    return not narrow and not _follows_bottleneck(context, operation)


def _follows_bottleneck(context: DesignContext, operation: Operation) -> bool:
    """Return whether a 1×1 convolution that reduces channels precedes an operation."""
    previous = context.operations_by_number.get(operation.producers[0][1])
    while previous is not None and previous.local and len(previous.producers) == 1:
        previous = context.operations_by_number.get(previous.producers[0][1])
    if previous is None or previous.window is None or previous.window.pooling:
        return False
    reduces = previous.output[1] < previous.inputs[0][1]
    return prod(previous.window.kernel) == 1 and reduces


def _bottleneck_width(operation: Operation) -> int:
    return min(operation.inputs[0][1] // 4, operation.output[1] // 2)


def _bottleneck_macs(operation: Operation) -> int:
    """Return the MACs of a convolution with an added 1×1 bottleneck before it."""
    window, width = operation.window, _bottleneck_width(operation)
    assert window is not None  # noqa: S101 - checked before
    channels, places = operation.inputs[0][1], prod(operation.inputs[0][2:])
    inside = prod(operation.output[2:]) * prod(window.kernel) * operation.output[1]
    return places * channels * width + inside * width


CHECKS = (heavy_head, redundant_bias, bottlenecks)
