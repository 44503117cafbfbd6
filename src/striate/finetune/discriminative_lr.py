"""Discriminative learning rates: a lower rate for each stage farther from the head.

Stages next to the classifier are the most specific to the pretraining images and should
learn fastest. Stages near the cut point suit almost any image (Howard & Ruder 2018,
"Universal language model fine-tuning for text classification").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from striate.core.errors import SettingError
from striate.core.layer_names import named_layers
from striate.core.registry import unknown_name_error
from striate.finetune.batch_norm import ADAPTING, BATCH_NORM_MODES
from striate.finetune.cut_points import Stage
from striate.finetune.split_model import CutPoint

LOWEST_LR_SCALE = 0.1  # of the classifier's rate, for the stage next to the cut point


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """Settings for training the stages behind a cut point."""

    # learning-rate factor from each stage to the stage before; 1: no decay
    layer_decay: float = 1.0
    unfreeze: int = 0  # number of epochs until the next stage is unfrozen; 0: train all
    # running statistics `adapting` to the new images, or `frozen`; weights and biases
    # train in both cases
    batch_norm: str = ADAPTING

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            what = (
                f"layer_decay must be above 0 and at most 1, got {self.layer_decay:g}"
            )
            raise SettingError(what, where="--layer-decay")
        if self.unfreeze < 0:
            what = f"unfreeze must be at least 0, got {self.unfreeze}"
            raise SettingError(what, where="--unfreeze")
        if self.batch_norm not in BATCH_NORM_MODES:
            modes = BATCH_NORM_MODES
            raise unknown_name_error("batch-norm mode", self.batch_norm, modes)


def default_layer_decay(stages: int) -> float:
    """Return the decay factor that gives the first stage 0.1 × the classifier's rate.

    Example:
        >>> round(default_layer_decay(3), 3), default_layer_decay(1)
        (0.316, 0.1)
    """
    return float(LOWEST_LR_SCALE ** (1 / max(stages - 1, 1)))


def stages_behind(
    model: nn.Module, stages: Sequence[Stage], cut: CutPoint
) -> tuple[Stage, ...]:
    """Return the stages behind a cut point; the first stage may be incomplete.

    Example:
        >>> from striate.finetune.split_model import cut_at, probe_batch
        >>> from striate.finetune.cut_points import find_stages
        >>> layers = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 2), nn.Flatten()
        >>> model = nn.Sequential(*layers, nn.Linear(2, 3))
        >>> x = probe_batch((1, 4, 4))
        >>> behind = stages_behind(model, find_stages(model, x), cut_at(model, x, "0"))
        >>> [stage.layers for stage in behind]
        [('1',), ('3',)]
    """
    modules = dict(named_layers(model))
    head = {id(module) for module in cut.head.modules()}
    behind = []
    for stage in stages:
        layers = tuple(name for name in stage.layers if id(modules[name]) in head)
        if layers:
            behind.append(Stage(name=stage.name, layers=layers))
    return tuple(behind)


@dataclass(frozen=True, kw_only=True)
class TrainableStages:
    """Stages of a model behind the cut point, and the settings for training them."""

    model: nn.Module = field(repr=False)  # the whole model
    stages: tuple[Stage, ...]  # stages in order from the cut point to the classifier
    config: FineTuneConfig
    # name patterns of layers that are never unfrozen
    always_frozen: tuple[str, ...] = ()

    def lr_scales(self) -> dict[nn.Parameter, float]:
        """Return the learning-rate factor of each parameter; 1 in the classifier."""
        modules = dict(named_layers(self.model))
        scales: dict[nn.Parameter, float] = {}
        for depth, stage in enumerate(reversed(self.stages)):
            for name in stage.layers:
                for parameter in modules[name].parameters(recurse=False):
                    scales[parameter] = self.config.layer_decay**depth
        return scales
