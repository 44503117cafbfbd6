"""What a network's arithmetic says against its design, and what a change would give.

Each piece of advice is a fact with its numbers, and the numbers after the change. It
is about geometry and cost only: whether accuracy gains is for a trial to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from striate.audit.layer import Layer, Operation
from striate.audit.network import Audit
from striate.audit.used_positions import Reading, read
from striate.core.findings import Prose


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A remark on a network's design.

    Args:
        about: What kind of remark, such as `redundant-bias`.
        layer: Where, as the table writes it; `image` for the input.
        finding: What is so, with its numbers.
        change: What could be done, with the numbers it would give.
        before: The number that the change is about.
        after: The same after it.
        unit: What that number counts.
    """

    about: str
    layer: str
    finding: str
    change: str
    before: int
    after: int
    unit: str

    @property
    def prose(self) -> Prose:
        """The remark as a finding."""
        return Prose(text=f"{self.finding} {self.change}", tone="advice")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A network as the checks look at it: layers, and who reads what."""

    audit: Audit
    reading: Reading
    owner: dict[int, Layer]
    made: dict[int, Operation]

    @property
    def operations(self) -> Iterator[tuple[Layer, Operation]]:
        """Every operation with its layer, in order."""
        return (
            (layer, operation)
            for layer in self.audit.layers
            for operation in layer.operations
        )

    def named(self, number: int) -> str:
        """Return the layer that an operation belongs to, or the image."""
        return self.owner[number].name if number in self.owner else "the image"


Check = Callable[[Plan], Iterator[Advice]]


def plan_of(audit: Audit) -> Plan:
    """Return a network made ready for the checks."""
    operations = [(o, layer) for layer in audit.layers for o in layer.operations]
    operations.sort(key=lambda pair: pair[0].number)
    return Plan(
        audit=audit,
        reading=read(o for o, _ in operations),
        owner={o.number: layer for o, layer in operations},
        made={o.number: o for o, _ in operations},
    )


def listed(names: Sequence[str], most: int = 3) -> str:
    """Write some names, and how many more there are.

    Example:
        >>> listed(["a"]), listed(["a", "b"]), listed(list("abcde"))
        ('a', 'a and b', 'a, b, c and 2 more')
    """
    names = list(dict.fromkeys(names))
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
