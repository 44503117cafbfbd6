"""Shapes of the results of graph operations, from the shapes of the inputs.

Each function raises a ValueError if the inputs or attributes do not fit the operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from striate.exporters.graph import BATCH, OPERATIONS

Shape = tuple[int, ...]
Attrs = Mapping[str, Any]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _same(attrs: Attrs, x: Shape) -> Shape:
    return x


def _broadcast(attrs: Attrs, a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    sizes = []
    for m, n in pairs:
        _require(m == n or 1 in (m, n), f"shapes {a} and {b} differ")
        sizes.append(n if m == 1 else m)
    return tuple(sizes)


def _window(attrs: Attrs, count: int) -> None:
    for name in ("stride", "padding", "dilation", "kernel", "output_padding"):
        lengths = len(attrs.get(name, [0] * count))
        _require(lengths == count, f"{name} needs {count} dimensions")


def _conv(attrs: Attrs, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    groups, count = attrs["groups"], len(x) - 2
    _require(1 <= count <= 3 and len(weight) == len(x), "needs 1–3 dimensions")
    _window(attrs, count)
    _require(x[1] == weight[1] * groups, f"weights do not fit {x}")
    _require(weight[0] % groups == 0, "channels do not fit the groups")
    _require(bias in (None, weight[:1]), "bias does not fit")
    windows = zip(
        x[2:],
        weight[2:],
        attrs["stride"],
        attrs["padding"],
        attrs["dilation"],
        strict=True,
    )
    sizes = [
        (size + low + high - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, (low, high), dilation in windows
    ]
    return (x[0], weight[0], *sizes)


def _conv_transpose(
    attrs: Attrs, x: Shape, weight: Shape, bias: Shape | None = None
) -> Shape:
    groups, count = attrs["groups"], len(x) - 2
    _require(1 <= count <= 3 and len(weight) == len(x), "needs 1–3 dimensions")
    _window(attrs, count)
    _require(x[1] == weight[0] and x[1] % groups == 0, "channels do not fit")
    channels = weight[1] * groups
    _require(bias in (None, (channels,)), "bias does not fit")
    sizes = []
    for i, size in enumerate(x[2:]):
        low, high = attrs["padding"][i]
        stride, dilation = attrs["stride"][i], attrs["dilation"][i]
        extra = attrs["output_padding"][i]
        _require(low == high and extra < max(stride, dilation), "padding")
        reach = dilation * (weight[2 + i] - 1) + extra + 1
        sizes.append((size - 1) * stride - low - high + reach)
    return (x[0], channels, *sizes)


def _linear(attrs: Attrs, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    _require(len(x) >= 2 and len(weight) == 2 and x[-1] == weight[1], "weight")
    _require(bias in (None, weight[:1]), "bias does not fit")
    return (*x[:-1], weight[0])


def _batch_norm(attrs: Attrs, x: Shape, *rest: Shape) -> Shape:
    _require(len(x) >= 2, "needs channels")
    _require(all(shape == x[1:2] for shape in rest), "weights do not fit")
    return x


def _group_norm(attrs: Attrs, x: Shape, *rest: Shape) -> Shape:
    shape = _batch_norm(attrs, x, *rest)
    _require(x[1] % attrs["groups"] == 0, "channels do not fit the groups")
    return shape


def _layer_norm(attrs: Attrs, x: Shape, *rest: Shape) -> Shape:
    count = attrs["count"]
    _require(1 <= count < len(x), "count")
    _require(all(shape == x[-count:] for shape in rest), "weights do not fit")
    return x


def _prelu(attrs: Attrs, x: Shape, weight: Shape) -> Shape:
    _require(len(x) >= 2 and math.prod(weight) in (1, x[1]), "weight")
    return x


def _lrn(attrs: Attrs, x: Shape) -> Shape:
    _require(len(x) >= 3, "needs channels and positions")
    return x


def _matmul(attrs: Attrs, a: Shape, b: Shape) -> Shape:
    _require(min(len(a), len(b)) >= 2 and a[-1] == b[-2], f"shapes {a} and {b}")
    return (*_broadcast(attrs, a[:-2], b[:-2]), a[-2], b[-1])


def _pool(attrs: Attrs, x: Shape) -> Shape:
    _require(3 <= len(x) <= 5, "needs 1–3 dimensions")
    _window(attrs, len(x) - 2)
    sizes = []
    for i, size in enumerate(x[2:]):
        kernel, stride = attrs["kernel"][i], attrs["stride"][i]
        low, high = attrs["padding"][i]
        dilation = attrs["dilation"][i] if "dilation" in attrs else 1
        _require(2 * max(low, high) <= kernel, "padding above half of the kernel")
        rest = size + low + high - dilation * (kernel - 1) - 1
        count = (rest + (stride - 1 if attrs["ceil"] else 0)) // stride + 1
        if attrs["ceil"] and (count - 1) * stride >= size + low:
            count -= 1  # a window may not begin in the padding
        sizes.append(count)
    return (*x[:2], *sizes)


def _reduce(attrs: Attrs, x: Shape) -> Shape:
    dims = attrs["dims"]
    _require(dims == sorted(set(dims)) and dims[-1] < len(x), "dims")
    if attrs["keepdim"]:
        return tuple(1 if i in dims else size for i, size in enumerate(x))
    return tuple(size for i, size in enumerate(x) if i not in dims)


def _softmax(attrs: Attrs, x: Shape) -> Shape:
    _require(attrs["dim"] < len(x), "dim")
    return x


def _concat(attrs: Attrs, *parts: Shape) -> Shape:
    dim, first = attrs["dim"], parts[0]
    _require(dim < len(first), "dim")
    for shape in parts:
        fits = (*shape[:dim], *shape[dim + 1 :]) == (*first[:dim], *first[dim + 1 :])
        _require(fits and len(shape) == len(first), f"shapes {first} and {shape}")
    total = sum(shape[dim] for shape in parts)
    return (*first[:dim], total, *first[dim + 1 :])


def _reshape(attrs: Attrs, x: Shape) -> Shape:
    shape, total = list(attrs["shape"]), math.prod(x)
    _require(shape.count(BATCH) <= 1, "two unknown dimensions")
    if BATCH in shape:
        rest = math.prod(size for size in shape if size != BATCH)
        shape[shape.index(BATCH)] = total // rest
    _require(math.prod(shape) == total, f"{x} has no shape {shape}")
    return tuple(shape)


def _permute(attrs: Attrs, x: Shape) -> Shape:
    dims = attrs["dims"]
    _require(sorted(dims) == list(range(len(x))), "dims")
    return tuple(x[dim] for dim in dims)


def _expand(attrs: Attrs, x: Shape, batch: int) -> Shape:
    shape = tuple(batch if size == BATCH else size for size in attrs["shape"])
    _require(len(shape) >= len(x) and _broadcast(attrs, x, shape) == shape, "shape")
    return shape


def _slice(attrs: Attrs, x: Shape) -> Shape:
    dim, start, end, step = (attrs[key] for key in ("dim", "start", "end", "step"))
    _require(dim < len(x) and start < end <= x[dim] and step > 0, "bounds")
    return (*x[:dim], -(-(end - start) // step), *x[dim + 1 :])


def _flip(attrs: Attrs, x: Shape) -> Shape:
    dims = attrs["dims"]
    _require(len({*dims}) == len(dims) and max(dims) < len(x), "dims")
    return x


def _pad(attrs: Attrs, x: Shape) -> Shape:
    padding, mode = attrs["padding"], attrs["mode"]
    _require(len(padding) == len(x), "padding needs all dimensions")
    for i, (size, (low, high)) in enumerate(zip(x, padding, strict=True)):
        if mode != "constant":
            _require(i > 1 or not low + high, "padding of images or channels")
        _require(mode != "reflect" or max(low, high) < size, "padding too large")
    return tuple(
        size + low + high for size, (low, high) in zip(x, padding, strict=True)
    )


def _resize(attrs: Attrs, x: Shape) -> Shape:
    _require(len(x) == 4 and len(attrs["size"]) == 2, "needs height and width")
    return (*x[:2], *attrs["size"])


_ELEMENTWISE = frozenset(kind for kind, text in OPERATIONS.items() if text == "x") | {
    *("gelu", "clamp", "leaky_relu", "elu", "pow")
}
_BROADCAST = frozenset(
    kind for kind, text in OPERATIONS.items() if text == "a, b" and kind != "matmul"
)
SHAPE_RULES: Mapping[str, Callable[..., Shape]] = {
    **dict.fromkeys(_ELEMENTWISE, _same),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(("mean", "sum", "max"), _reduce),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    **dict.fromkeys(("max_pool", "avg_pool"), _pool),
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "prelu": _prelu,
    "lrn": _lrn,
    "matmul": _matmul,
    "concat": _concat,
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "slice": _slice,
    "flip": _flip,
    "pad": _pad,
    "resize": _resize,
}


def result_shape(kind: str, attrs: Attrs, inputs: Sequence[Shape], batch: int) -> Shape:
    """Return the shape of the result of an operation.

    Args:
        kind: Key of `OPERATIONS`.
        attrs: Attributes with the right types, see `check_graph`.
        inputs: Shapes of the inputs, without BATCH.
        batch: Number of images.

    Raises:
        ValueError: The inputs or the attributes do not fit the operation.

    Example:
        >>> result_shape("matmul", {}, [(2, 3, 4), (4, 5)], batch=2)
        (2, 3, 5)
    """
    rule = SHAPE_RULES[kind]
    if kind == "expand":
        rule = partial(rule, batch=batch)
    try:
        shape = rule(attrs, *inputs)
    except TypeError as error:
        raise ValueError(f"{len(inputs)} inputs") from error
    _require(all(size > 0 for size in shape), f"result of shape {shape}")
    return shape
