"""Options of `striate explain`: target class, methods, layer, unit, extra sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from striate.core.registry import unknown
from striate.interpret.attribution.target import ClassRef
from striate.interpret.layer_choice import AUTO

METHODS = (AUTO, "occlusion", "integrated")


SECTIONS = ("set", "invariance", "depth", "bend")


OnProgress = Callable[[str], None]


Unit = tuple[str, tuple[int, ...]]  # a layer's call, and (channel, row, column)


def no_progress(line: str) -> None:
    """Tell nobody what takes long."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """What is asked about every image.

    Args:
        target: A class by name or number; the network's answer where None.
        against: A class it is held against; where None the label if the answer is
            wrong, else the runner-up.
        methods: Of `look.evidence`.
        layer: Whose maps class evidence is made of.
        unit: A unit to draw the field, the sum and the channel of: a layer's name and
            its place; the strongest of the evidence's layer where None.
        seed: Of the trust marks.
        sections: Parts that take longer, of a run: `set` (evidence over the whole set),
            `invariance` (images moved, pools exchanged), `depth` (gradients by
            layer, chains trained to compare), `bend` (why depth needs one).
        on_progress: Gets a line now and then from what takes long.

    Raises:
        UnknownNameError: A part of the page has no such name.
    """

    target: ClassRef | None = None
    against: ClassRef | None = None
    methods: tuple[str, ...] = METHODS
    layer: str = AUTO
    unit: Unit | None = None
    seed: int = 0
    sections: tuple[str, ...] = ()
    on_progress: OnProgress = field(default=no_progress, repr=False)

    def __post_init__(self) -> None:
        for name in self.sections:
            if name not in SECTIONS:
                raise unknown("part of the page", name, SECTIONS)
