"""Where to cut, what to let learn, how fast: found out on the training part alone.

One pass sees every cut. A linear head at each says what is known about these pictures
there already. It does not say what could be learnt; so ways are tried, and one of them
is proposed.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

from torch import nn

from striate.core import device as devices
from striate.core.files import damage_named, read_json
from striate.data.image_data import ImageData
from striate.engine.metrics import Z95
from striate.report.words import percent
from striate.runs.recipe import Recipe
from striate.runs.transfer.features import featured
from striate.runs.transfer.heads import LOGISTIC, TUNED, class_cost, groups_of
from striate.runs.transfer.trials import Bench, Trial, dealt, some_of
from striate.runs.transfer.wanted import Wanted
from striate.runs.transfer.ways import Tell, Ways, best_tuned
from striate.transfer.cut import probe
from striate.transfer.freeze import freeze
from striate.transfer.ladder import ladder
from striate.transfer.probing import Probe, ProbePoint, curve


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
        left_out: What could not be tried, and why.
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
    left_out: tuple[str, ...] = ()

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
        out = tuple(fields["left_out"])
        read = {"probes": tuple(probes), "trials": tuple(trials), "left_out": out}
        return cls(**{**fields, **read})

    @classmethod
    def read(cls, path: Path) -> Proposal:
        """Read a `plan.json`.

        Raises:
            RunError: It is missing, damaged, or of another version.
        """
        fields = read_json(path)
        with damage_named(path):
            return cls.from_dict(fields)


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
        StriateError: The network cannot be cut, the pictures cannot be parted, all that
            was asked for diverges, or the disk refused.
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
    labels, groups = few.part("train").labels, groups_of(few, found)
    bench = Bench(
        model=model,
        data=few,
        recipe=recipe,
        found=found,
        hands=dealt(labels, groups, recipe.seed),
        ladder=cuts,
        every=(sum(map(len, data.parts.values())), len(data.part("train"))),
    )
    probes = _probes(bench, tell)
    ways = Ways(bench=bench, asked=asked, tell=tell)
    ways.explore(probes)
    trials, chosen = ways.trials, ways.chosen()
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
        left_out=tuple(ways.left_out),
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
