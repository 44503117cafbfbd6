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
Channels = tuple[str, tuple[int, ...]]  # a layer's call, and channel numbers


def no_progress(line: str) -> None:
    """Ignore progress messages."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Options of `striate explain`.

    Raises:
        UnknownNameError: The name of a section is unknown.
    """

    target: ClassRef | None = None  # class name or index; the predicted class if None
    # A second class to compare with; if None the label if the prediction is wrong, else
    # the second-best class.
    against: ClassRef | None = None
    methods: tuple[str, ...] = METHODS  # names of attribution methods
    layer: str = AUTO  # target layer of CAM methods
    # Unit to show: a layer call and (channel, row, column); the strongest unit of the
    # target layer if None.
    unit: Unit | None = None
    seed: int = 0  # random seed of the sanity checks
    # Extra sections, for a run: `dataset` (heatmaps over the dataset), `invariance`
    # (transformed images, other pooling), `depth` (gradients by layer), `nonlinearity`
    # (why activations are needed).
    sections: tuple[str, ...] = ()
    visualize: Channels | None = None  # channels to show an optimized image of
    ablate: Channels | None = None  # channels to replace by zero and by their mean
    # Called with a line of text during long computations.
    on_progress: OnProgress = field(default=no_progress, repr=False)

    def __post_init__(self) -> None:
        for name in self.sections:
            if name not in SECTIONS:
                raise unknown_name_error("section", name, SECTIONS)
