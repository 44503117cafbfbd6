"""Options of `striate transfer`, and the split of a model into backbone and head."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from striate.core.errors import SettingError
from striate.core.layer_names import layer_at, layer_name
from striate.core.registry import unknown_name_error
from striate.core.settings import AUTO
from striate.data.image_data import ImageData
from striate.finetune.batch_norm import ADAPTING, FROZEN, freeze_batch_norm_stats
from striate.finetune.cut_points import Stage, find_stages
from striate.finetune.discriminative_lr import (
    FineTuneConfig,
    TrainableStages,
    default_layer_decay,
    stages_behind,
)
from striate.finetune.freeze import FrozenLayers, freeze, frozen_layers
from striate.finetune.split_model import BEFORE, CutPoint, cut_at
from striate.models.config import ModelConfig
from striate.models.head import last_dense
from striate.run.transfer_plan import HEADS, LOGISTIC, TRAINED, TUNED
from striate.workflows.transfer.features import probe_images
from striate.workflows.transfer.heads import linear_layer_of


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """Options of `striate transfer`: cut point, kind of head, and fine-tuning.

    Args:
        cut: Name of the last frozen layer; default: all but the classifier. `auto`
            chooses cut point, head and learning rates by short trials.
        head: `logistic`: logistic regression; `trained`: the optimizer of the recipe;
            `tuned`: first logistic regression, then training. Default: `logistic`, or
            chosen by `cut="auto"`.
        views: Number of augmented copies of each training image; default 0.
        layer_decay: Learning rate factor from each stage to the earlier stage.
        unfreeze: Epochs until the next earlier stage is unfrozen; 0: all at once.
        batch_norm: Batch norm statistics after the cut point: `adapting` or `frozen`.

    Raises:
        UnknownNameError: The kind of head or the batch norm mode does not exist.
        SettingError: A value is out of range, or has no effect.
    """

    cut: str | None = None
    head: str | None = None
    views: int = 0
    layer_decay: float | None = None
    unfreeze: int = 0
    batch_norm: str | None = None

    def __post_init__(self) -> None:
        if self.head is not None and self.head not in HEADS:
            raise unknown_name_error("head", self.head, HEADS)
        if self.views < 0:
            what = f"views must be at least 0, got {self.views}"
            raise SettingError(what, where="--views")
        _ = self.fine_tune_config(1)
        if self.is_planned and self.head == TRAINED:
            what = "--cut auto allows only a logistic or a tuned head"
            fix = "remove --head, or give a layer with --cut"
            raise SettingError(what, where="--head", fix=fix)
        if self.head_kind == LOGISTIC and not (self.is_planned and self.head is None):
            self._check_no_stage_options()

    def _check_no_stage_options(self) -> None:
        """Raise an error for options that have no effect on a logistic head."""
        requested = {
            "--layer-decay": self.layer_decay is not None,
            "--unfreeze": self.unfreeze > 0,
            "--batch-norm": self.batch_norm is not None,
        }
        for flag, is_set in requested.items():
            if is_set:
                what = f"{flag} has no effect on a logistic head, a single layer"
                fix = "use --head tuned or --head trained, with --cut LAYER"
                raise SettingError(what, where=flag, fix=fix)

    @property
    def is_planned(self) -> bool:
        """Return whether the cut point is chosen automatically: `--cut auto`."""
        return self.cut == AUTO

    @property
    def head_kind(self) -> str:
        """Return the kind of head; `logistic` by default."""
        return self.head or LOGISTIC

    @property
    def may_tune(self) -> bool:
        """Return whether pretrained layers are or may be trained further."""
        planned = self.is_planned and self.head is None
        return self.head_kind == TUNED or planned

    def fine_tune_config(self, stages: int) -> FineTuneConfig:
        """Return the fine-tuning settings for a number of stages."""
        usual = default_layer_decay(stages) if self.head_kind == TUNED else 1.0
        return FineTuneConfig(
            layer_decay=usual if self.layer_decay is None else self.layer_decay,
            unfreeze=self.unfreeze,
            batch_norm=self.batch_norm or ADAPTING,
        )


@dataclass(frozen=True, kw_only=True)
class SplitModel:
    """A model split into a frozen backbone and a trainable head."""

    cut: CutPoint
    backbone: FrozenLayers  # the frozen layers before the cut point
    frozen: FrozenLayers  # all frozen layers; they must not change during training
    # the stages to train, with their learning rates
    stages: TrainableStages = field(repr=False)
    patterns: tuple[str, ...]  # names of the layers before the cut point, and --freeze


def split_model(
    model: nn.Module, data: ImageData, config: ModelConfig, options: TransferOptions
) -> SplitModel:
    """Split a model, and freeze all layers that are not trained, in place.

    Raises:
        SettingError: The cut point is not possible, or no layer is left to train.
    """
    x = probe_images(model, data)
    name = options.cut
    if name is None and config.head_hidden:  # its first layer is new, too
        name = BEFORE + layer_name(str(last_dense(model))).rpartition(".")[0]
    cut = cut_at(model, x, name)
    if options.head_kind == LOGISTIC:
        linear_layer_of(cut.head)
    user_frozen = config.freeze or ()
    patterns = (*cut.backbone, *user_frozen)
    stages = stages_behind(model, find_stages(model, x), cut)
    backbone = freeze(model, patterns)
    if options.head_kind == TUNED:
        _check_classifier_trains(model, stages[-1])
    stages = tuple(s for s in stages if any(t for _, t in _requires_grad(model, s)))
    tuning = options.fine_tune_config(len(stages))
    if tuning.batch_norm == FROZEN:
        freeze_batch_norm_stats(cut.head)
    return SplitModel(
        cut=cut,
        backbone=backbone,
        frozen=frozen_layers(model),
        stages=TrainableStages(
            model=model, stages=stages, config=tuning, always_frozen=user_frozen
        ),
        patterns=patterns,
    )


def _requires_grad(model: nn.Module, stage: Stage) -> list[tuple[str, bool]]:
    """Return the layer of each parameter of a stage, and whether it is trained."""
    layers = {name: layer_at(model, name) for name in stage.layers}
    return [
        (name, parameter.requires_grad)
        for name, layer in layers.items()
        for parameter in layer.parameters(recurse=False)
    ]


def _check_classifier_trains(model: nn.Module, classifier: Stage) -> None:
    for layer, is_trained in _requires_grad(model, classifier):
        if not is_trained:
            what = f"'{layer}' is frozen, but a tuned head must train this layer"
            fix = "remove the layer from --freeze, or use --head trained"
            raise SettingError(what, where="--freeze", fix=fix)


def with_hidden_head(config: ModelConfig, options: TransferOptions) -> TransferOptions:
    """Return the options with `head="trained"`, if the recipe has `--head-hidden`.

    Raises:
        SettingError: Another kind of head is requested.
    """
    if not config.head_hidden:
        return options
    if options.is_planned or options.head in (TUNED, LOGISTIC):
        what = "a head with a hidden layer cannot be fitted by logistic regression"
        raise SettingError(what, where="--head-hidden", fix="use --head trained")
    return replace(options, head=TRAINED)
