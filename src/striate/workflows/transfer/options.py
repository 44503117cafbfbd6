"""Options of `striate transfer`, and the split of a model into backbone and head."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from striate.core import device as devices
from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error
from striate.core.settings import AUTO
from striate.data.image_data import ImageData
from striate.finetune.batch_norm import ADAPTING, FROZEN, freeze_batch_norm_stats
from striate.finetune.cut_points import Stage, find_stages
from striate.finetune.discriminative_lr import (
    FineTuneConfig,
    TrainableStages,
    default_lr_decay,
    stages_behind,
)
from striate.finetune.freeze import FrozenLayers, freeze, frozen_layers
from striate.finetune.split_model import BEFORE, CutPoint, cut_at, probe_batch
from striate.models.config import ModelConfig
from striate.models.head import last_dense
from striate.run.recipe import Recipe
from striate.run.transfer_plan import HEADS, LOGISTIC, TRAINED, TUNED
from striate.workflows.transfer.heads import linear_layer_of

# Default learning rates of pretrained layers: far below those of training from scratch.
TUNED_LR = {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3, "muon": 1e-3}


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
        lr_decay: Learning rate factor from each stage to the earlier stage.
        unfreeze: Epochs until the next earlier stage is unfrozen; 0: all at once.
        batch_norm: Batch norm statistics after the cut point: `adapting` or `frozen`.

    Raises:
        UnknownNameError: The kind of head or the batch norm mode does not exist.
        SettingError: A value is out of range, or has no effect.
    """

    cut: str | None = None
    head: str | None = None
    views: int = 0
    lr_decay: float | None = None
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
            "--lr-decay": self.lr_decay is not None,
            "--unfreeze": self.unfreeze > 0,
            "--batch-norm": self.batch_norm is not None,
        }
        for flag in (flag for flag, is_set in requested.items() if is_set):
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

    def fine_tune_config(self, stages: int) -> FineTuneConfig:
        """Return the fine-tuning settings for a number of stages."""
        usual = default_lr_decay(stages) if self.head_kind == TUNED else 1.0
        return FineTuneConfig(
            lr_decay=usual if self.lr_decay is None else self.lr_decay,
            unfreeze=self.unfreeze,
            batch_norm=self.batch_norm or ADAPTING,
        )


@dataclass(frozen=True, kw_only=True)
class SplitModel:
    """A model split into a frozen backbone and a trainable head."""

    cut: CutPoint  # the cut point
    backbone: FrozenLayers  # the frozen layers before the cut point
    frozen: FrozenLayers  # all frozen layers; they must not change during training
    # the stages to train, with their learning rates
    stages: TrainableStages = field(repr=False)


def split_model(
    model: nn.Module, data: ImageData, recipe: Recipe, options: TransferOptions
) -> tuple[SplitModel, Recipe]:
    """Split a model, and freeze all layers that are not trained, in place.

    Returns:
        The split model, and the recipe with the names of frozen layers.

    Raises:
        SettingError: The cut point is not possible, or no layer is left to train.
    """
    device = devices.select_device(recipe.device)
    x = probe_batch((data.in_chans, *data.image_size)).to(device)
    name = options.cut
    if name is None and recipe.head_hidden:  # its first layer is new, too
        name = BEFORE + str(last_dense(model)).rpartition(".")[0]
    cut = cut_at(model, x, name)
    if options.head_kind == LOGISTIC:
        linear_layer_of(cut.head)
    user_frozen = recipe.freeze or ()
    patterns = (*cut.backbone, *user_frozen)
    stages = stages_behind(model, find_stages(model, x), cut)
    backbone = freeze(model, patterns)
    if options.head_kind == TUNED:
        _check_classifier_trains(model, stages[-1])
    stages = tuple(stage for stage in stages if _is_trainable(model, stage))
    config = options.fine_tune_config(len(stages))
    if config.batch_norm == FROZEN:
        freeze_batch_norm_stats(cut.head)
    trainable = TrainableStages(
        model=model, stages=stages, config=config, always_frozen=user_frozen
    )
    frozen = frozen_layers(model)
    split = SplitModel(cut=cut, backbone=backbone, frozen=frozen, stages=trainable)
    return split, replace(recipe, freeze=patterns or None)


def _is_trainable(model: nn.Module, stage: Stage) -> bool:
    modules = dict(model.named_modules())
    layers = [modules[name].parameters(recurse=False) for name in stage.layers]
    return any(parameter.requires_grad for layer in layers for parameter in layer)


def _check_classifier_trains(model: nn.Module, classifier: Stage) -> None:
    modules = dict(model.named_modules())
    for name in classifier.layers:
        parameters = modules[name].parameters(recurse=False)
        if not all(parameter.requires_grad for parameter in parameters):
            what = f"'{name}' is frozen, but a tuned head must train this layer"
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


def with_default_lr(recipe: Recipe, options: TransferOptions) -> Recipe:
    """Return the recipe, with a default learning rate for pretrained layers."""
    planned = options.is_planned and options.head is None
    if recipe.lr is not None or not (options.head_kind == TUNED or planned):
        return recipe
    return replace(recipe, lr=TUNED_LR[recipe.optimizer])
