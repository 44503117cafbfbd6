"""Logits of a network's output, which may also contain other tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from striate.core.errors import GeometryError

FORMS = (
    "return the logits as a tensor (images, classes), as the first value of a tuple, "
    "or as 'logits' of a dict or named tuple"
)


def find_logits(output: object) -> Tensor | None:
    """Return the tensor of the logits in a network's output; None if it is not clear.

    The output is a tensor; an object or a mapping with `logits`; a tuple or list whose
    first value is a matrix; or a container with only one matrix.

    Example:
        >>> import torch
        >>> logits, maps = torch.zeros(1, 2), torch.zeros(1, 8, 4, 4)
        >>> outputs = logits, (logits, maps), {"maps": maps, "logits": logits}
        >>> [find_logits(output) is logits for output in outputs]
        [True, True, True]
        >>> find_logits({"a": logits, "b": logits.clone()}) is None
        True
    """
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else None
    named = getattr(output, "logits", None) if named is None else named
    if isinstance(named, Tensor):
        return named
    values: list[object] = []
    if isinstance(output, Mapping):
        values = list(output.values())
    elif isinstance(output, tuple | list):
        values = list(output)
        if values and _is_matrix(values[0]):
            values = values[:1]
    matrices = [v for v in values if isinstance(v, Tensor) and _is_matrix(v)]
    return matrices[0] if len(matrices) == 1 else None


def _is_matrix(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2


def logits_of(output: object) -> Tensor:
    """Return the logits of a network's output, after a check of the shape.

    Raises:
        GeometryError: The output has no logits of the shape (images, classes).

    Example:
        >>> import torch
        >>> logits_of((torch.zeros(1, 2), "other")).shape
        torch.Size([1, 2])
    """
    logits = find_logits(output)
    if logits is not None and logits.ndim == 2:
        return logits
    what = "a classifier with output (images, classes) is required, got "
    raise GeometryError(what + output_text(output), fix=FORMS)


def main_output(output: object) -> Tensor:
    """Return a tensor output of any shape unchanged; else the logits of the output.

    Raises:
        GeometryError: The output is not a tensor and has no logits.
    """
    return output if isinstance(output, Tensor) else logits_of(output)


def output_text(output: object) -> str:
    """Describe a network's output: the shape of a tensor, or the type.

    Example:
        >>> import torch
        >>> output_text(torch.zeros(2, 3)), output_text({"a": 1, "b": 2})
        ('2×3', 'a dict with a, b')
    """
    if isinstance(output, Tensor):
        return "×".join(map(str, output.shape)) or "a scalar"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with {', '.join(map(str, output))}"
    return f"a {type(output).__name__}"
