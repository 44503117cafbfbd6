"""Where to cut, what to let learn, how fast: found out on the training part alone.

One pass sees every cut. A linear head at each says what is known about these pictures
there already. It does not say what could be learnt; so tuning is tried, from the middle
of the network with batch-norm statistics frozen and adapting, then from lower cuts as
long as it pays, or, where the head alone is better, from a higher one: the highest that
knows as much as any, for what lies behind it has learnt too much of other pictures.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from striate.core import device as devices
from striate.core.taps import untouched
from striate.data.image_data import ImageData
from striate.engine.metrics import Z95
from striate.report.words import percent
from striate.runs.recipe import Recipe
from striate.runs.transfer.features import featured
from striate.runs.transfer.heads import LOGISTIC, TUNED, class_cost, groups_of
from striate.runs.transfer.trials import Bench, Trial, some_of
from striate.runs.transfer.wanted import Wanted
from striate.transfer.cut import probe
from striate.transfer.freeze import freeze
from striate.transfer.ladder import Ladder, ladder
from striate.transfer.probing import Probe, ProbePoint, curve
from striate.transfer.tuning import ADAPTING, FROZEN

Tell = Callable[[str], None]
MOST_BYTES = 4e9  # of features at a cut that is tried


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What is to be done, what to expect of it, and what it was chosen among.

    Args:
        probes: A linear head at every cut, from the input up.
        trials: The head alone first.
        chosen: Number of the one proposed.
        accuracy: To be expected on the validation part.
        low: End of its 95 % interval, which knows how few pictures said so, and how
            few will judge.
        high: The other end.
        judging: Pictures of the validation part.
        pictures: Of the training part that the plan looked at.
        passing: Seconds of the one pass.
        seconds: Of the whole plan, the pass and the trials included.
        kept: Pictures whose averages were there from before.
    """

    probes: tuple[Probe, ...]
    trials: tuple[Trial, ...]
    chosen: int
    accuracy: float
    low: float
    high: float
    judging: int
    pictures: int
    passing: float
    seconds: float
    kept: int = 0

    @property
    def best(self) -> Trial:
        """Return the way that is proposed."""
        return self.trials[self.chosen]

    @property
    def tuned(self) -> Trial | None:
        """Return the best of the tuned ones, proposed or not."""
        return best_tuned(self.trials)

    def wanted(self, asked: Wanted) -> Wanted:
        """Return what was asked for, with all that was left to the plan."""
        best = self.best
        if best.head == LOGISTIC:
            return Wanted(head=LOGISTIC, views=asked.views)
        return way_of(best, asked)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Proposal:
        """Read what `as_dict` wrote, also from JSON."""
        probes = [
            Probe(**{**one, "points": tuple(ProbePoint(**p) for p in one["points"])})
            for one in fields["probes"]
        ]
        tuples = ("stages", "right", "costs")
        trials = [
            Trial(**{**one, **{name: tuple(one[name]) for name in tuples}})
            for one in fields["trials"]
        ]
        return cls(**{**fields, "probes": tuple(probes), "trials": tuple(trials)})


def way_of(trial: Trial, asked: Wanted) -> Wanted:
    """Return how to do with all pictures what a trial of a tuned head did."""
    return replace(
        asked,
        cut=trial.cut,
        head=TUNED,
        lr_decay=trial.lr_decay,
        batch_norm=trial.batch_norm,
    )


def propose(
    model: nn.Module, data: ImageData, recipe: Recipe, asked: Wanted, tell: Tell
) -> Proposal:
    """Look at every cut, try the likely ways, and choose.

    Validation and test pictures play no part in it.

    Args:
        model: Where it computes, with its weights; left as it was.
        data: The pictures.
        recipe: How heads learn.
        asked: What the user wants; the rest is chosen.
        tell: Gets a line when something is known.

    Raises:
        StriateError: The network cannot be cut, or the disk refused.
    """
    began = time.perf_counter()
    few = some_of(data, recipe.seed)
    own = copy.deepcopy(model)
    x = probe((data.in_chans, *data.image_size)).to(devices.choose(recipe.device))
    cuts = ladder(own, x)
    body = freeze(own, (*cuts.body, *(recipe.freeze or ())))
    found = featured(own, cuts, body, few, recipe, parts=("train",))
    passing = time.perf_counter() - began
    tell(f"{len(few.part('train')):,} pictures passed once, {passing:.0f} s")
    every = sum(len(part) for part in data.parts.values()), len(data.part("train"))
    bench = Bench(
        model=model, data=few, recipe=recipe, found=found, ladder=cuts, every=every
    )
    probes = _probes(bench, tell)
    trials = _trials(bench, probes, asked, tell)
    chosen = _chosen(trials, asked)
    judging = len(data.part("val"))
    accuracy, half = expected(probes[-1], trials[0], trials[chosen], judging)
    return Proposal(
        probes=probes,
        trials=tuple(trials),
        chosen=chosen,
        accuracy=accuracy,
        low=max(0.0, accuracy - half),
        high=min(1.0, accuracy + half),
        judging=judging,
        pictures=len(few.part("train")),
        passing=passing,
        seconds=time.perf_counter() - began,
        kept=found.count - found.computed,
    )


def _probes(bench: Bench, tell: Tell) -> tuple[Probe, ...]:
    """Fit a linear head at every cut, from ever more pictures."""
    part = bench.data.part("train")
    groups = groups_of(bench.data, bench.found)
    x = bench.found.rows["train"].whole()
    cost, classes = class_cost(bench.data, bench.recipe), bench.data.num_classes
    probes = []
    for rung, cut in enumerate(bench.ladder.cuts):
        mine = x[:, bench.ladder.columns(rung)]
        points = curve(mine, part.labels, classes, groups, cost, bench.recipe.seed)
        probe_ = Probe(cut=cut.name, width=mine.shape[1], count=len(x), points=points)
        probes.append(probe_)
        tell(f"linear head behind {cut.name}: {percent(probe_.accuracy)}")
    return tuple(probes)


def first_rung(probes: Sequence[Probe]) -> int:
    """Return the highest cut that is as good as the best, by one standard error.

    Never the last: that would leave nothing but the head to learn.
    """
    best = max(probes, key=lambda one: one.accuracy)
    enough = best.accuracy - best.error
    good = [i for i, one in enumerate(probes[:-1]) if one.accuracy >= enough]
    return max(good, default=len(probes) - 2)


def _trials(
    bench: Bench, probes: Sequence[Probe], asked: Wanted, tell: Tell
) -> list[Trial]:
    """Try the head alone, tuned ones from the middle, then up or down from there."""
    alone = _tried(bench, Wanted(head=LOGISTIC), tell)
    high = first_rung(probes)
    if asked.head == LOGISTIC or high < 0:
        return [alone]
    low = _lowest(bench, tell)
    rung = max(low, (len(probes) - 1) // 2)
    modes = _modes(bench, rung, asked)
    tuned = [_tuned(bench, rung, mode, asked, tell) for mode in modes]
    best = min(tuned, key=lambda trial: trial.cost)
    if best.behind(alone):
        if high > rung:
            tuned.append(_tuned(bench, high, best.batch_norm, asked, tell))
        return [alone, *tuned]
    while (rung := rung // 2) >= low:
        tuned.append(_tuned(bench, rung, best.batch_norm, asked, tell))
        if rung == 0 or not best.behind(tuned[-1]):
            break
        best = tuned[-1]
    return [alone, *tuned]


def _modes(bench: Bench, rung: int, asked: Wanted) -> list[str]:
    """Return what batch norms may do: of a few pictures, statistics are poor."""
    if asked.batch_norm:
        return [asked.batch_norm]
    return [FROZEN, ADAPTING] if _has_norms(bench.ladder, rung) else [ADAPTING]


def _lowest(bench: Bench, tell: Tell) -> int:
    """Return the lowest cut whose features are not too large to be kept."""
    for rung, cut in enumerate(bench.ladder.cuts[:-1]):
        if _bytes(bench, rung) <= MOST_BYTES:
            return rung
        tell(f"features behind {cut.name} would be too large to try it")
    return len(bench.ladder.cuts) - 2


def _tuned(bench: Bench, rung: int, mode: str, asked: Wanted, tell: Tell) -> Trial:
    cut = bench.ladder.cuts[rung].name
    wanted = replace(asked, cut=cut, head=TUNED, views=0, unfreeze=0, batch_norm=mode)
    return _tried(bench, wanted, tell)


def _tried(bench: Bench, wanted: Wanted, tell: Tell) -> Trial:
    trial = bench.run(wanted)
    what = "head alone" if trial.head == LOGISTIC else f"tuned behind {trial.cut}"
    norm = f", batch norm {trial.batch_norm}" if trial.batch_norm else ""
    came = f"{percent(trial.accuracy)}, cost {trial.cost:.3f}"
    tell(f"{what}{norm}: {came}, {trial.seconds:.0f} s")
    return trial


def _has_norms(cuts: Ladder, rung: int) -> bool:
    tail = cuts.cuts[rung].tail
    return any(isinstance(module, _BatchNorm) for module in tail.modules())


def _bytes(bench: Bench, rung: int) -> int:
    """Return how large the features of all pictures behind a cut would be."""
    size = bench.data.in_chans, *bench.data.image_size
    x = probe(size, 1).to(devices.choose(bench.recipe.device))
    with untouched(bench.model), torch.inference_mode():
        row = bench.ladder.cuts[rung].features(bench.model, x)
    return row.numel() * 4 * bench.every[0]


def best_tuned(trials: Sequence[Trial]) -> Trial | None:
    """Return the tuned one of which most learns, of those as good as the cheapest.

    As good, by a standard error: fewer pictures and epochs than there will be hold
    back what learns more.
    """
    tuned = [trial for trial in trials if trial.head == TUNED]
    least = min(tuned, key=lambda trial: trial.cost, default=None)
    good = [trial for trial in tuned if least and not trial.behind(least)]
    best = max(good, key=lambda one: (len(one.stages), -one.cost), default=None)
    return best


def _chosen(trials: Sequence[Trial], asked: Wanted) -> int:
    """Return the number of the best tuned one, or of the head alone if that is better.

    Better by a standard error, as the head alone is hardly held back.
    """
    best = best_tuned(trials)
    if best is None or (asked.head is None and best.behind(trials[0])):
        return 0
    return trials.index(best)


def expected(
    last: Probe, alone: Trial, chosen: Trial, judging: int
) -> tuple[float, float]:
    """Return the accuracy to expect of a way, and half of its 95 % interval.

    The head alone is known best, by all folds of the pictures; what the way gains on it
    comes from the pictures both were tried on. Pictures scatter in the folds, in that
    difference, and in the part that will judge.
    """
    pairs = list(zip(chosen.right, alone.right, strict=True))
    gain = sum(int(mine) - int(other) for mine, other in pairs) / len(pairs)
    differing = sum(mine != other for mine, other in pairs) / len(pairs) ** 2
    accuracy = min(1.0, max(0.0, last.accuracy + gain))
    share = (accuracy * last.count + 2) / (last.count + 4)
    spread = share * (1 - share) * (1 / last.count + 1 / max(judging, 1))
    return accuracy, Z95 * sqrt(spread + differing)
