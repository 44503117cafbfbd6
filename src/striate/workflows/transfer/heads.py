"""Heads that learn from features: logistic regression, or a tail by the usual loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from striate.core import device as devices
from striate.core.errors import SettingError
from striate.core.hooks import evaluation_mode
from striate.data.batches import Batches
from striate.data.cache.feature_cache import FeatureRows
from striate.data.image_data import ImageData
from striate.engine.callbacks import EpochResult, StepResult
from striate.engine.evaluate import Outputs, evaluate
from striate.engine.loop import Epochs, fit
from striate.engine.loss import cross_entropy_loss
from striate.engine.rng import preserve_rng_state
from striate.finetune.logistic import Cost, Fitted, logistic
from striate.finetune.split_model import cut_at
from striate.finetune.unfreezing import Depth, Thaw, adapt_statistics
from striate.run.builders import batches_of, cost_of_classes, optimizer_of, plan_of
from striate.run.progress import Display
from striate.run.recipe import Recipe
from striate.run.run import EVALUATION_BATCH, judged_at_once
from striate.run.transfer_plan import LOGISTIC, TUNED
from striate.workflows.transfer.features import Featured


@dataclass(frozen=True, kw_only=True)
class FeatureBatches:
    """Batches of features, in the order that batches of the images would have.

    Args:
        batches: Of the images; only their order is asked for.
        rows: The images' features, and those of their views: one an epoch, in turn.
        device: Where they are wanted.
    """

    batches: Batches
    rows: Sequence[FeatureRows] = field(repr=False)
    device: torch.device

    def __call__(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (features, labels) of an epoch, the first `start` batches left out."""
        rows = self.rows[epoch % len(self.rows)]
        for index in self.batches.indices(epoch, start):
            labels = self.batches.subset.labels[index]
            yield rows[index].to(self.device), labels.to(self.device)

    def __len__(self) -> int:
        return len(self.batches)


@dataclass(frozen=True)
class _AsOne:
    """All epochs as a single one: nothing is judged until it ends."""

    batches: FeatureBatches
    epochs: int

    def __call__(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return chain.from_iterable(map(self.batches, range(self.epochs)))

    def __len__(self) -> int:
        return self.epochs * len(self.batches)


@dataclass(frozen=True, kw_only=True)
class HeadResult:
    """What a head came to.

    Args:
        history: Its epochs; logistic regression has one.
        fitted: Its penalties, where it is logistic.
    """

    history: list[EpochResult]
    fitted: Fitted | None = None


def fit_head(
    tail: nn.Sequential,
    kind: str,
    found: Featured,
    data: ImageData,
    recipe: Recipe,
    quiet: bool = True,
    depth: Depth | None = None,
    best: bool = True,
) -> HeadResult:
    """Let a network's tail learn from features, in place.

    Args:
        tail: What lies behind the cut.
        kind: Of `HEADS`.
        found: The features.
        data: Their images.
        recipe: How to learn.
        quiet: Show no progress.
        depth: How its stages differ; all alike where not given.
        best: Keep the weights of the epoch that validation likes best. If not, the last
            epoch's are kept, and only these are judged.

    Raises:
        SettingError: The tail is not of that kind.
    """
    if kind == LOGISTIC:
        return _logistic(tail, found, data, recipe)
    if kind == TUNED:
        _begin(tail, found, data, recipe)
    return _trained(tail, found, data, recipe, quiet, depth, best)


def batches(
    split: str, found: Featured, data: ImageData, recipe: Recipe
) -> FeatureBatches:
    """Return a part's features in batches; to learn from, with their views."""
    device = devices.select_device(recipe.device)
    of = batches_of(split, data, recipe, device)
    views = found.views if split == "train" else ()
    rows = (found.rows[split], *views)
    return FeatureBatches(batches=of, rows=rows, device=device)


def answers(
    tail: nn.Module, split: str, found: Featured, data: ImageData, recipe: Recipe
) -> Outputs:
    """Return what the network says of a part's images, in their order."""
    device = devices.select_device(recipe.device)
    rows = found.rows[split]
    order = torch.split(torch.arange(len(rows)), judged_at_once(*data.image_size))
    labels = data.subset(split).labels
    pairs = ((rows[i].to(device), labels[i].to(device)) for i in order)
    return evaluate(tail, pairs)


def dense_of(tail: nn.Sequential) -> nn.Linear:
    """Return the dense layer of a tail that is nothing else, dropout aside.

    Raises:
        SettingError: It is more than that.
    """
    held = [m for m in tail.modules() if not any(m.children())]
    held = [m for m in held if not isinstance(m, _DropoutNd | nn.Identity)]
    if len(held) != 1 or not isinstance(held[0], nn.Linear):
        what = f"behind the cut stand {len(held)} layers, not one dense layer"
        fix = "leave --cut out, or train what is behind it: --head trained"
        raise SettingError(what, where="--head logistic", fix=fix)
    return held[0]


def _logistic(
    tail: nn.Sequential, found: Featured, data: ImageData, recipe: Recipe
) -> HeadResult:
    dense = dense_of(tail)
    each = (found.rows["train"], *found.views)
    x = torch.cat([rows.load() for rows in each])
    fitted = _put_logistic(dense, x, found, data, recipe)
    learned, held = (answers(tail, p, found, data, recipe) for p in ("train", "val"))
    done = EpochResult(
        epoch=0,
        train_loss=learned.loss,
        val_loss=held.loss,
        val_accuracy=held.accuracy,
        val_balanced_accuracy=held.balanced_accuracy,
        lr=0.0,
        best=True,
    )
    return HeadResult(history=[done], fitted=fitted)


def _put_logistic(
    dense: nn.Linear, x: Tensor, found: Featured, data: ImageData, recipe: Recipe
) -> Fitted:
    """Fit a dense layer to features of the training split, and of views behind them."""
    subset = data.subset("train")
    times = len(x) // len(subset)
    fitted = logistic(
        x,
        subset.labels.repeat(times),
        data.num_classes,
        groups=groups_of(data, found) * times,
        judged=torch.arange(len(x)) < len(subset),
        cost=class_cost(data, recipe),
        seed=recipe.seed,
    )
    with torch.no_grad():
        dense.weight.copy_(fitted.weight)
        if dense.bias is not None:
            dense.bias.copy_(fitted.bias)
    return fitted


def _begin(
    tail: nn.Sequential, found: Featured, data: ImageData, recipe: Recipe
) -> None:
    """Fit the head first, so that what is below does not follow one drawn at random.

    Kumar et al. 2022, "Fine-tuning can distort pretrained features": the linear probe
    first, then all.
    """
    device = devices.select_device(recipe.device)
    rows = found.rows["train"]
    even = ceil(len(rows) / EVALUATION_BATCH)  # each batch's statistics count alike
    order = torch.arange(len(rows)).tensor_split(even)
    adapt_statistics(tail, (rows[i].to(device) for i in order))
    some = rows[torch.arange(min(2, len(rows)))].to(device)
    inner = cut_at(tail, some)
    with evaluation_mode(tail), torch.inference_mode():
        below = [inner.features(tail, rows[i].to(device)).cpu() for i in order]
    _put_logistic(dense_of(inner.tail), torch.cat(below), found, data, recipe)


def class_cost(data: ImageData, recipe: Recipe) -> Cost:
    """Return what logits cost a logistic head, uneven classes made up for.

    It is shown every image at once, and none oftener than others: where rare classes
    are to be sampled oftener, their images count more, which is the same on average.
    """
    if recipe.class_weights == "sampling":
        recipe = replace(recipe, class_weights="loss")
    return cross_entropy_loss(0.0, cost_of_classes(data, recipe, torch.device("cpu")))


def groups_of(data: ImageData, found: Featured) -> list[str]:
    """Return what must not be parted: an image's group, else the image itself."""
    rows = {row.path: row for row in data.rows if row.split == "train"}
    names = data.subset("train").paths
    groups = [rows[name].group if name in rows else "" for name in names]
    contents = found.keys["train"]
    return [f"g {g}" if g else c for g, c in zip(groups, contents, strict=True)]


class _Best:
    """Keeps the weights of the best epoch."""

    def __init__(self, tail: nn.Module) -> None:
        self._tail = tail
        self.state = _copy(tail)

    def on_step_end(self, done: StepResult) -> None:
        """Nothing is judged after a step."""

    def on_epoch_end(self, done: EpochResult) -> None:
        """Keep them if there were none better."""
        if done.best:
            self.state = _copy(self._tail)


def _copy(tail: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tail.state_dict().items()}


def _trained(
    tail: nn.Sequential,
    found: Featured,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    depth: Depth | None,
    best: bool,
) -> HeadResult:
    device = devices.select_device(recipe.device)
    plan = plan_of(data, recipe, device)
    train, val = (batches(split, found, data, recipe) for split in ("train", "val"))
    epochs: Epochs = train
    if not best and not (depth and depth.tuning.unfreeze):  # stages thaw after epochs
        epochs, plan = _AsOne(train, plan.epochs), replace(plan, epochs=1)
    kept = _Best(tail)
    with (
        preserve_rng_state(),
        devices.flush_denormals(),
        Display(plan.epochs, train.batches, quiet, plan.balanced) as display,
    ):
        whole, scales = (depth.model, depth.scales()) if depth else (tail, None)
        optimizer = optimizer_of(whole, recipe, scales)  # Muon asks what is inside
        thaw = [Thaw(depth)] if depth else []
        history = fit(tail, optimizer, epochs, val, plan, (kept, *thaw, display))
        for one in thaw:
            one.end()
    if best:
        tail.load_state_dict(kept.state)
    return HeadResult(history=history)
