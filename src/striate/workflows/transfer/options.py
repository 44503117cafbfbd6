"""What a user asks of `striate transfer`, and the two halves that it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from striate.core import device as devices
from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error
from striate.data.image_data import ImageData
from striate.finetune.cut_points import Stage, stages
from striate.finetune.freeze import Frozen, freeze, frozen, hold_statistics
from striate.finetune.split_model import BEFORE, Cut, cut_at, probe
from striate.finetune.unfreezing import (
    ADAPTING,
    FROZEN,
    Depth,
    Tuning,
    decay_for,
    learning,
)
from striate.models.head import last_dense
from striate.run.recipe import AUTO, Recipe
from striate.run.transfer_plan import HEADS, LOGISTIC, TRAINED, TUNED
from striate.workflows.transfer.heads import dense_of

# Largest rates of what was trained before: far below those of networks from scratch.
TUNED_LR = {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3, "muon": 1e-3}


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """What is to be reused, and how the rest learns.

    Args:
        cut: The last layer that stays as it is; by default all but the head. `auto`
            lets a plan choose it, and all that is not given here.
        head: `logistic`; `trained` by the recipe's optimizer; `tuned`: first the one,
            then the other. Logistic where neither it nor a plan says.
        views: Changed views of each training image to learn from too.
        lr_decay: Factor on the rate from stage to stage, going down from the head.
        unfreeze: Epochs until the next stage below learns too; 0 for all at once.
        batch_norm: Behind the cut: `adapting`, or `frozen`.

    Raises:
        UnknownNameError: No head or mode is called so.
        SettingError: A value is out of range, or would do nothing.
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
        _ = self.tuning(1)
        if self.planned and self.head == TRAINED:
            what = "a plan chooses between a logistic head and one that is tuned"
            raise SettingError(what, where="--head", fix="leave it out, or name a cut")
        if self.kind == LOGISTIC and not (self.planned and self.head is None):
            self._check_vain()

    def _check_vain(self) -> None:
        """Refuse what a logistic head has no use for."""
        asked = {
            "--lr-decay": self.lr_decay is not None,
            "--unfreeze": self.unfreeze > 0,
            "--batch-norm": self.batch_norm is not None,
        }
        for flag, given in asked.items():
            if given:
                what = "logistic regression has no stages that could differ"
                fix = "--head tuned or --head trained has, with --cut LAYER"
                raise SettingError(what, where=flag, fix=fix)

    @property
    def planned(self) -> bool:
        """Say whether a plan chooses."""
        return self.cut == AUTO

    @property
    def kind(self) -> str:
        """Return the head's name."""
        return self.head or LOGISTIC

    def tuning(self, count: int) -> Tuning:
        """Return how so many stages are to differ."""
        usual = decay_for(count) if self.kind == TUNED else 1.0
        return Tuning(
            lr_decay=usual if self.lr_decay is None else self.lr_decay,
            unfreeze=self.unfreeze,
            batch_norm=self.batch_norm or ADAPTING,
        )


@dataclass(frozen=True, kw_only=True)
class SplitModel:
    """A network that is cut: what runs once, and what learns.

    Args:
        cut: Where.
        body: What is frozen below it, by which features are kept.
        frozen: All that is frozen, which must be the same at the end.
        depth: What learns.
    """

    cut: Cut
    body: Frozen
    frozen: Frozen
    depth: Depth = field(repr=False)


def halve(
    model: nn.Module, data: ImageData, recipe: Recipe, wanted: TransferOptions
) -> tuple[SplitModel, Recipe]:
    """Cut a network and freeze, in place, all that does not learn.

    Returns:
        The halves, and the recipe that says what is frozen.

    Raises:
        SettingError: It cannot be cut there, or nothing is left to learn.
    """
    device = devices.select_device(recipe.device)
    x = probe((data.in_chans, *data.image_size)).to(device)
    name = wanted.cut
    if name is None and recipe.head_hidden:  # its first layer is new, too
        name = BEFORE + str(last_dense(model)).rpartition(".")[0]
    cut = cut_at(model, x, name)
    if wanted.kind == LOGISTIC:
        dense_of(cut.tail)
    kept = recipe.freeze or ()
    held = (*cut.body, *kept)
    parts = learning(model, stages(model, x), cut)
    body = freeze(model, held)
    if wanted.kind == TUNED:
        _check_head_learns(model, parts[-1])
    parts = tuple(part for part in parts if _learns(model, part))
    tuning = wanted.tuning(len(parts))
    if tuning.batch_norm == FROZEN:
        hold_statistics(cut.tail)
    depth = Depth(model=model, stages=parts, tuning=tuning, kept=kept)
    halves = SplitModel(cut=cut, body=body, frozen=frozen(model), depth=depth)
    return halves, replace(recipe, freeze=held or None)


def _learns(model: nn.Module, stage: Stage) -> bool:
    modules = dict(model.named_modules())
    own = [modules[name].parameters(recurse=False) for name in stage.layers]
    return any(parameter.requires_grad for mine in own for parameter in mine)


def _check_head_learns(model: nn.Module, head: Stage) -> None:
    modules = dict(model.named_modules())
    for name in head.layers:
        own = modules[name].parameters(recurse=False)
        if not all(parameter.requires_grad for parameter in own):
            what = f"'{name}' is frozen, and a tuned head begins by being fitted"
            fix = "leave it out of --freeze, or take --head trained"
            raise SettingError(what, where="--freeze", fix=fix)


def headed(recipe: Recipe, wanted: TransferOptions) -> TransferOptions:
    """Return what is wanted where the head is a small network, which is trained.

    Raises:
        SettingError: It is asked for with a head of another kind.
    """
    if not recipe.head_hidden:
        return wanted
    if wanted.planned or wanted.kind == TUNED or wanted.head == LOGISTIC:
        what = "a head with a hidden layer begins anew, and is trained"
        raise SettingError(what, where="--head-hidden", fix="use --head trained")
    return replace(wanted, head=TRAINED)


def rated(recipe: Recipe, wanted: TransferOptions) -> Recipe:
    """Return a recipe whose rate, where none is given, suits trained layers."""
    tunes = wanted.kind == TUNED or (wanted.planned and wanted.head is None)
    if recipe.lr is not None or not tunes:
        return recipe
    return replace(recipe, lr=TUNED_LR[recipe.optimizer])
