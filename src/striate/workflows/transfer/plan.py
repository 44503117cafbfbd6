"""Where to cut, what to let learn, how fast: found out on the training split alone.

One pass sees every cut. A linear head at each says what is known about these images
there already. It does not say what could be learned; so ways are tried, and one of them
is proposed.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from math import sqrt

from torch import nn

from striate.core import device as devices
from striate.data.image_data import ImageData
from striate.finetune.cut_points import ladder
from striate.finetune.freeze import freeze
from striate.finetune.linear_probe import Probe, curve
from striate.finetune.split_model import probe
from striate.metrics.intervals import Z95
from striate.report.format import percent
from striate.run.recipe import Recipe
from striate.run.transfer_plan import LOGISTIC, TUNED, TransferPlan, TransferTrial
from striate.workflows.transfer.features import featured
from striate.workflows.transfer.heads import class_cost, groups_of
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.search import Tell, Ways
from striate.workflows.transfer.trials import Bench, dealt, some_of


def way_of(trial: TransferTrial, asked: TransferOptions) -> TransferOptions:
    """Return how to do with all images what a trial of a tuned head did."""
    return replace(
        asked,
        cut=trial.cut,
        head=TUNED,
        lr_decay=trial.lr_decay,
        batch_norm=trial.batch_norm,
    )


def propose(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    asked: TransferOptions,
    tell: Tell,
) -> TransferPlan:
    """Look at every cut, try the likely ways, and choose.

    Validation and test images play no part in it.

    Args:
        model: Where it computes, with its weights; left as it was.
        data: The images.
        recipe: How heads learn.
        asked: What the user wants; the rest is chosen.
        tell: Gets a line when something is known.

    Raises:
        StriateError: The network cannot be cut, the images cannot be parted, all that
            was asked for diverges, or the disk refused.
    """
    began = time.perf_counter()
    few = some_of(data, recipe.seed)
    own = copy.deepcopy(model)
    x = probe((data.in_chans, *data.image_size)).to(
        devices.select_device(recipe.device)
    )
    cuts = ladder(own, x)
    body = freeze(own, (*cuts.body, *(recipe.freeze or ())))
    found = featured(own, cuts, body, few, recipe, splits=("train",))
    passing = time.perf_counter() - began
    tell(f"{len(few.subset('train')):,} images passed once, {passing:.0f} s")
    labels, groups = few.subset("train").labels, groups_of(few, found)
    bench = Bench(
        model=model,
        data=few,
        recipe=recipe,
        found=found,
        hands=dealt(labels, groups, recipe.seed),
        ladder=cuts,
        every=(sum(map(len, data.subsets.values())), len(data.subset("train"))),
    )
    probes = _probes(bench, tell)
    ways = Ways(bench=bench, asked=asked, tell=tell)
    ways.explore(probes)
    trials, chosen = ways.trials, ways.chosen()
    judging = len(data.subset("val"))
    accuracy, half = expected(probes[-1], trials[0], trials[chosen], judging)
    return TransferPlan(
        probes=probes,
        trials=tuple(trials),
        chosen=chosen,
        accuracy=accuracy,
        low=max(0.0, accuracy - half),
        high=min(1.0, accuracy + half),
        judging=judging,
        images=len(few.subset("train")),
        passing=passing,
        seconds=time.perf_counter() - began,
        kept=found.count - found.computed,
        left_out=tuple(ways.left_out),
    )


def _probes(bench: Bench, tell: Tell) -> tuple[Probe, ...]:
    """Fit a linear head at every cut, from ever more images."""
    subset = bench.data.subset("train")
    groups = groups_of(bench.data, bench.found)
    x = bench.found.rows["train"].load()
    cost, classes = class_cost(bench.data, bench.recipe), bench.data.num_classes
    probes = []
    for rung, cut in enumerate(bench.ladder.cuts):
        mine = x[:, bench.ladder.columns(rung)]
        points = curve(mine, subset.labels, classes, groups, cost, bench.recipe.seed)
        probe_ = Probe(cut=cut.name, width=mine.shape[1], count=len(x), points=points)
        probes.append(probe_)
        tell(f"linear head behind {cut.name}: {percent(probe_.accuracy)}")
    return tuple(probes)


def expected(
    last: Probe, alone: TransferTrial, chosen: TransferTrial, judging: int
) -> tuple[float, float]:
    """Return the accuracy to expect of a way, and half of its 95 % interval.

    The head alone is known best, by all folds of the images; what the way gains on it
    comes from the images both were tried on. Images scatter in the folds, in that
    difference, and in the part that will judge.
    """
    pairs = list(zip(chosen.right, alone.right, strict=True))
    gain = sum(int(mine) - int(other) for mine, other in pairs) / len(pairs)
    differing = sum(mine != other for mine, other in pairs) / len(pairs) ** 2
    accuracy = min(1.0, max(0.0, last.accuracy + gain))
    share = (accuracy * last.count + 2) / (last.count + 4)
    spread = share * (1 - share) * (1 / last.count + 1 / max(judging, 1))
    return accuracy, Z95 * sqrt(spread + differing)


def options_from_plan(
    proposal: TransferPlan, asked: TransferOptions
) -> TransferOptions:
    """Return what was asked for, with all that was left to the plan."""
    best = proposal.best
    if best.head == LOGISTIC:
        return TransferOptions(head=LOGISTIC, views=asked.views)
    return way_of(best, asked)
