"""Data types for advice on a network's design, shared by all checks.

Each piece of advice gives a number before and after the proposed change. The advice is
about geometry, parameters and MACs only. Only training shows whether accuracy improves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from striate.audit.layer import Layer, Operation
from striate.audit.network import Audit
from striate.audit.used_positions import UsedPositions, find_used_positions
from striate.core.findings import Prose


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One piece of advice on a network's design."""

    check: str  # name of the check, such as `redundant-bias`
    layer: str  # name of the layer in the summary table; `image` for the input
    finding: str  # the problem, with its numbers
    change: str  # the proposed change, with the numbers after the change
    before: int  # the number before the change
    after: int  # the same number after the change
    unit: str  # unit of that number

    @property
    def prose(self) -> Prose:
        """The problem and the proposed change as one paragraph."""
        return Prose(f"{self.finding} {self.change}", "advice")


@dataclass(frozen=True, kw_only=True)
class DesignContext:
    """Input of the advice checks: the layers, and the data flow between operations."""

    audit: Audit
    usage: UsedPositions
    layer_of: dict[int, Layer]
    operations_by_number: dict[int, Operation]

    @property
    def operations(self) -> Iterator[tuple[Layer, Operation]]:
        """Pairs (layer, operation), in the order in which the operations ran."""
        return (
            (layer, operation)
            for layer in self.audit.layers
            for operation in layer.operations
        )

    def name_of(self, number: int) -> str:
        """Return the layer name of operation `number`; `the image` if it has none."""
        return self.layer_of[number].name if number in self.layer_of else "the image"


Check = Callable[[DesignContext], Iterator[Advice]]


def design_context(audit: Audit) -> DesignContext:
    """Return the `DesignContext` of a network, the input of every advice check."""
    operations = [(o, layer) for layer in audit.layers for o in layer.operations]
    operations.sort(key=lambda pair: pair[0].number)
    return DesignContext(
        audit=audit,
        usage=find_used_positions(o for o, _ in operations),
        layer_of={o.number: layer for o, layer in operations},
        operations_by_number={o.number: o for o, _ in operations},
    )


def join_names(names: Sequence[str]) -> str:
    """Join up to three names, such as `a and b`; for more names, append `and 2 more`.

    Example:
        >>> join_names(["a"]), join_names(["a", "b"]), join_names(list("abcde"))
        ('a', 'a and b', 'a, b, c and 2 more')
    """
    names = list(dict.fromkeys(names))
    if len(names) > 3:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
