"""Options of `striate explain`, such as target class, methods and layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from striate.core.registry import unknown_name_error
from striate.interpret.attribution.target import ClassRef
from striate.interpret.layer_choice import AUTO

METHODS = (AUTO, "occlusion", "integrated_gradients")
SECTIONS = ("dataset", "invariance", "depth", "nonlinearity")
OnProgress = Callable[[str], None]
Unit = tuple[str, tuple[int, ...]]  # a layer's call, and (channel, row, column)


def no_progress(line: str) -> None:
    """Ignore progress messages."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Options of `striate explain`.

    Args:
        target: Class name or index; the predicted class if None.
        against: A second class to compare with; if None the label if the prediction is
            wrong, else the second-best class.
        methods: Names of attribution methods.
        layer: Target layer of CAM methods.
        unit: Unit to show: a layer call and (channel, row, column); the strongest unit
            of the target layer if None.
        seed: Random seed of the sanity checks.
        sections: Extra sections, for a run: `dataset` (heatmaps over the dataset),
            `invariance` (transformed images, other pooling), `depth` (gradients by
            layer), `nonlinearity` (why activations are needed).
        on_progress: Called with a line of text during long computations.

    Raises:
        UnknownNameError: The name of a section is unknown.
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
                raise unknown_name_error("section", name, SECTIONS)
