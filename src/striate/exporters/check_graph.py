"""Check of a graph in a file from a stranger: limits, names, attributes, shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from striate.core.errors import GeometryError
from striate.core.registry import unknown_name_error
from striate.exporters.graph import BATCH, OPERATIONS
from striate.exporters.graph_shapes import result_shape

MAX_NODES = 20_000
MAX_INPUTS = 1_000  # of one node
MAX_NAME = 300  # characters
MAX_RANK = 8
MAX_SIZE = 2**31 - 1  # of a dimension, and of any integer attribute
MAX_VALUES = 2**28  # of one image in one result
_BATCHES = (2, 3)  # sizes of the two computations; what differs is BATCH

Check = Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE


def _is_positive(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e38


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_bound(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_size(value: Any) -> bool:
    return value == BATCH or _is_positive(value)


def _list_of(check: Check) -> Check:
    return lambda values: (
        isinstance(values, list)
        and 1 <= len(values) <= MAX_RANK
        and all(check(value) for value in values)
    )


def _is_pair(value: Any) -> bool:
    return _list_of(_is_count)(value) and len(value) == 2


def _any_of(*choices: str) -> Check:
    return lambda value: isinstance(value, str) and value in choices


_WINDOW: dict[str, Check] = {
    "stride": _list_of(_is_positive),
    "padding": _list_of(_is_pair),
}
_CONV = _WINDOW | {"dilation": _list_of(_is_positive), "groups": _is_positive}
_POOL = _WINDOW | {"kernel": _list_of(_is_positive), "ceil": _is_flag}
_REDUCE = {"dims": _list_of(_is_count), "keepdim": _is_flag}
ATTRIBUTES: Mapping[str, Mapping[str, Check]] = {
    "conv": _CONV,
    "conv_transpose": _CONV | {"output_padding": _list_of(_is_count)},
    "batch_norm": {"eps": _is_number},
    "layer_norm": {"eps": _is_number, "count": _is_positive},
    "group_norm": {"eps": _is_number, "groups": _is_positive},
    "lrn": {
        "size": _is_positive,
        "alpha": _is_number,
        "beta": _is_number,
        "k": _is_number,
    },
    "gelu": {"approximate": _any_of("none", "tanh")},
    "clamp": {"low": _is_bound, "high": _is_bound},
    "leaky_relu": {"slope": _is_number},
    "elu": {"alpha": _is_number},
    "pow": {"exponent": _is_number},
    "max_pool": _POOL | {"dilation": _list_of(_is_positive)},
    "avg_pool": _POOL | {"count_padding": _is_flag},
    **dict.fromkeys(("mean", "sum", "max"), _REDUCE),
    **{kind: {"dim": _is_count} for kind in ("softmax", "log_softmax", "concat")},
    "reshape": {"shape": _list_of(_is_size)},
    "permute": {"dims": _list_of(_is_count)},
    "expand": {"shape": _list_of(_is_size)},
    "slice": dict.fromkeys(("dim", "start", "end", "step"), _is_count),
    "flip": {"dims": _list_of(_is_count)},
    "pad": {
        "padding": _list_of(_is_pair),
        "mode": _any_of("constant", "reflect", "edge"),
        "value": _is_number,
    },
    "resize": {
        "size": _list_of(_is_positive),
        "mode": _any_of("nearest", "bilinear", "bicubic"),
        "align_corners": _is_flag,
    },
}


def check_graph(fields: Any, constants: Mapping[str, tuple[int, ...]]) -> None:
    """Check the result of `NetworkGraph.as_dict`, which may come from anybody.

    Args:
        fields: JSON values.
        constants: Shapes of the constants.

    Raises:
        UnknownNameError: An operation is unknown.
        GeometryError: The graph is not valid, or too large.

    Example:
        >>> check_graph({"nodes": []}, {})
        Traceback (most recent call last):
        striate.core.errors.GeometryError: damaged graph: keys nodes
    """
    _check_keys(fields, {"input", "output", "nodes", "shapes"}, "")
    nodes, shapes = fields["nodes"], fields["shapes"]
    if not isinstance(nodes, list) or not 1 <= len(nodes) <= MAX_NODES:
        raise _error(f"it must have 1 to {MAX_NODES:,} operations")
    for node in nodes:
        _check_node(node)
    _check_order(fields, nodes, constants)
    _check_shapes(fields, nodes)
    computed = [_computed(fields, constants, batch) for batch in _BATCHES]
    for name, declared in shapes.items():
        pair = zip(*(values[name] for values in computed), strict=True)
        shape = [m if m == n else BATCH for m, n in pair]
        if shape != declared:
            raise _error(f"value {name!r} has shape {shape}, not {declared}")


def _error(what: str, where: str = "") -> GeometryError:
    return GeometryError(f"damaged graph: {what}", where=where or None)


def _listed(names: Iterable[Any]) -> str:
    """Return the first names as a text."""
    first = [str(name)[:MAX_NAME] for name in islice(names, 4)]
    return ", ".join([*first[:3], "…"] if first[3:] else first)


def _check_keys(fields: Any, keys: set[str], where: str) -> None:
    if not isinstance(fields, dict):
        raise _error("an object is missing", where)
    if fields.keys() != keys:
        raise _error(f"keys {_listed(fields)}", where)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable()


def _check_node(node: Any) -> None:
    _check_keys(node, {"kind", "inputs", "output", "attrs", "layer"}, "")
    kind, inputs, attrs = node["kind"], node["inputs"], node["attrs"]
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= MAX_INPUTS:
        raise _error("an operation has no inputs, or too many")
    names = *inputs, node["output"], node["layer"], kind
    if not all(map(_is_name, names)) or not node["output"]:
        raise _error("a name is too long, or not printable")
    if kind not in OPERATIONS:
        raise unknown_name_error("operation", kind, OPERATIONS)
    checks = ATTRIBUTES.get(kind, {})
    _check_keys(attrs, {*checks}, _where(node))
    for key, check in checks.items():
        if not check(attrs[key]):
            what = f"attribute {key} is {str(attrs[key])[:60]}"
            raise _error(what, _where(node))


def _where(node: Mapping[str, Any]) -> str:
    return f"{node['layer'] or 'forward()'} ({node['kind']})"


def _check_order(
    fields: Mapping[str, Any],
    nodes: list[dict[str, Any]],
    constants: Mapping[str, tuple[int, ...]],
) -> None:
    """Check that each value is computed once, before it is read."""
    if not _is_name(fields["input"]) or not _is_name(fields["output"]):
        raise _error("input or output has no name")
    known, read = {fields["input"], *constants}, {fields["output"]}
    if fields["input"] in constants:
        raise _error(f"value {fields['input']!r} exists twice")
    for node in nodes:
        for name in node["inputs"]:
            if name not in known:
                what = f"value {name!r} is read before it is computed"
                raise _error(what, _where(node))
        if node["output"] in known:
            raise _error(f"value {node['output']!r} exists twice", _where(node))
        known.add(node["output"])
        read.update(node["inputs"])
    if fields["output"] not in known or fields["output"] in constants:
        raise _error(f"no operation computes the output {fields['output']!r}")
    if unused := constants.keys() - read:
        raise _error(f"no operation reads {_listed(sorted(unused))}")


def _check_shapes(fields: Mapping[str, Any], nodes: list[dict[str, Any]]) -> None:
    shapes, names = fields["shapes"], {node["output"] for node in nodes}
    if not isinstance(shapes, dict) or shapes.keys() != {*names, fields["input"]}:
        raise _error("the shapes do not belong to the operations")
    is_shape = _list_of(_is_size)
    for name, shape in shapes.items():
        valid = is_shape(shape) and math.prod(map(abs, shape)) <= MAX_VALUES
        if not valid:
            raise _error(f"shape of {name!r} is {str(shape)[:60]}")
    ends = (fields["input"], 4), (fields["output"], 2)
    for name, rank in ends:
        shape = shapes[name]
        if len(shape) != rank or shape[0] != BATCH or BATCH in shape[1:]:
            raise _error(f"shape of {name!r} is {shape}")


def _computed(
    fields: Mapping[str, Any], constants: Mapping[str, tuple[int, ...]], batch: int
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all values for a number of images."""
    channels, height, width = fields["shapes"][fields["input"]][1:]
    shapes = dict(constants)
    shapes[fields["input"]] = batch, channels, height, width
    for node in fields["nodes"]:
        inputs = [shapes[name] for name in node["inputs"]]
        try:
            shape = result_shape(node["kind"], node["attrs"], inputs, batch)
        except ValueError as error:
            raise _error(f"an operation does not fit: {error}", _where(node)) from error
        if math.prod(shape) > MAX_VALUES * batch:
            raise _error(f"a result has shape {list(shape)}", _where(node))
        shapes[node["output"]] = shape
    return shapes
