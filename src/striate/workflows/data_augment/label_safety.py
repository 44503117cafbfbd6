"""How far images can be changed before a network mistakes them, class by class.

An augmentation teaches that a changed image still is what it was. Where that is not
so (a mirrored 2, a 6 stood on its head) it teaches something wrong. No rule knows that,
but a trained network and images it has not learned from can say where to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from striate.core import device as devices
from striate.data.augment.augment import Augment
from striate.data.augment.pipeline import changed
from striate.data.augment.single_transform import Trial, at, coins, furthest
from striate.data.subset import Subset
from striate.engine.evaluate import evaluate
from striate.metrics.classification import confusion_matrix, wilson
from striate.metrics.significance import holm, no_loss
from striate.run.run import Run, judged_at_once

# Beside the end of its range, each change is measured at these amounts.
AMOUNTS: dict[str, tuple[float, ...]] = {
    "rotate": (5, 10, 15, 20, 30, 45, 90, 180),
    "shear": (5, 10, 20, 30, 45),
    "warp": (0.02, 0.05, 0.08, 0.12),
    "crop": (0.1, 0.2, 0.3, 0.5),
    "color": (0.05, 0.1, 0.2, 0.3, 0.5),
    "scale": (0.1, 0.25, 0.5, 1.0),
    "shift": (0.05, 0.1, 0.2, 0.3),
}
LEVEL = 0.05  # chance of any false alarm among all classes and changes
LEAST_LOSS = 0.05  # less is not worth a warning, however certain
# A class looks like another if most of its lost images get that one's name, and
# images of the rest get it at most a quarter as often. Without the second condition
# any strange image would "look like" whatever a network calls strange images.
CONCENTRATED, ELSEWHERE = 0.5, 0.25


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a network said of images that were changed by one amount.

    Args:
        trial: The change and the amount.
        counts: (classes, classes) images by true and predicted class.
        lost: (classes,) images that were right unchanged and are wrong now.
        won: (classes,) the other way round.
        names: (classes, classes) the lost images by true and predicted class.
    """

    trial: Trial
    counts: np.ndarray = field(repr=False)
    lost: np.ndarray = field(repr=False)
    won: np.ndarray = field(repr=False)
    names: np.ndarray = field(repr=False)

    @property
    def right(self) -> np.ndarray:
        """Return right answers by class."""
        return self.counts.diagonal()

    @property
    def accuracy(self) -> float:
        """Return the share of right answers."""
        return float(self.right.sum() / self.counts.sum())

    def errors(self, k: int) -> tuple[int, float, float]:
        """Return a class's most frequent error.

        Returns:
            The other class, the share of class k given its name, and the share of the
            remaining classes given it too.
        """
        wrong = self.counts[k].copy()
        wrong[k] = 0
        other = int(wrong.argmax())
        rest = np.ones(len(wrong), bool)
        rest[[k, other]] = False
        images = max(int(self.counts[rest].sum()), 1)
        elsewhere = float(self.counts[rest, other].sum() / images)
        return other, float(wrong[other] / max(int(self.counts[k].sum()), 1)), elsewhere

    def lookalike(self, k: int) -> tuple[int, float] | None:
        """Return the class that most of class k looks like, and how much; or None."""
        other, share, elsewhere = self.errors(k)
        alike = share > CONCENTRATED and elsewhere <= ELSEWHERE * share
        return (other, share) if alike else None


@dataclass(frozen=True, kw_only=True)
class Danger:
    """A class that suffers at the end of a change's range, beyond chance.

    Args:
        trial: The change and the amount.
        label: The class.
        before: Share of its images that is right unchanged.
        after: The same, changed.
        interval: Wilson's 95 % interval of `after`.
        count: Its images.
        chance: Adjusted probability of such a loss where there is none.
        taken_for: The name that most of its lost images are given.
        share: How many of the lost ones that is.
        elsewhere: Share of the remaining classes' images given that name.
    """

    trial: Trial
    label: str
    before: float
    after: float
    interval: tuple[float, float]
    count: int
    chance: float
    taken_for: str
    share: float
    elsewhere: float

    @property
    def mistaken(self) -> bool:
        """Tell whether lost images look like one other class, and only they do."""
        return self.share > CONCENTRATED and self.elsewhere <= ELSEWHERE * self.share


@dataclass(frozen=True, kw_only=True)
class Safety:
    """Accuracy against amount, per class, on images the network has not learned from.

    Args:
        split: Which part was judged.
        labels: Class names.
        curves: By change, from amount 0 on.
        ends: By change, the end of the range that was asked about.
        dangers: What must be looked at, the worst first.
    """

    split: str
    labels: tuple[str, ...]
    curves: dict[str, tuple[Measured, ...]] = field(repr=False)
    ends: dict[str, float]
    dangers: tuple[Danger, ...]

    @property
    def images(self) -> int:
        """Return how many images were judged."""
        first = next(iter(self.curves.values()))[0]
        return int(first.counts.sum())


def measure(
    run: Run,
    augment: Augment,
    split: str = "val",
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Safety:
    """Judge a run's network on images changed further and further.

    Every change is measured alone, in random directions, on the validation split: the
    test split is for the one final judgement.

    Args:
        run: A finished run.
        augment: Changes that are on, and their ranges.
        split: Which of the run's parts to change.
        tick: Told (done, all) after every amount.
    """
    images = run.data.subset(split)
    ends = furthest(augment)
    plans = {end.change: _amounts(end) for end in ends}
    total = 1 + sum(len(amounts) - 1 for amounts in plans.values())
    plain = _answers(run, images, Trial("rotate", 0.0), augment.border)
    tick(1, total)
    done = 1
    curves: dict[str, tuple[Measured, ...]] = {}
    for change, amounts in plans.items():
        found = [_measured(run, images, Trial(change, 0.0), plain, plain)]
        for amount in amounts[1:]:
            trial = Trial(change, amount)
            said = _answers(run, images, trial, augment.border)
            found.append(_measured(run, images, trial, plain, said))
            done += 1
            tick(done, total)
        curves[change] = tuple(found)
    dangers = dangers_of(curves, ends, run.labels.names)
    return Safety(
        split=split,
        labels=run.labels.names,
        curves=curves,
        ends={end.change: end.amount for end in ends},
        dangers=dangers,
    )


def _amounts(end: Trial) -> list[float]:
    return sorted({0.0, *AMOUNTS.get(end.change, ()), end.amount})


def _answers(run: Run, subset: Subset, trial: Trial, border: str) -> np.ndarray:
    device = devices.choose(run.recipe.device)
    model = run.model.to(device)
    batches = _batches(run, subset, trial, border, device)
    said: np.ndarray = evaluate(model, batches).logits.argmax(1).numpy()
    return said


def _batches(
    run: Run, subset: Subset, trial: Trial, border: str, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    augment = trial.augment(border)
    signs = coins(len(subset), trial, run.recipe.seed)
    size = judged_at_once(run.preprocess.height, run.preprocess.width)
    for index in torch.split(torch.arange(len(subset)), size):
        draws = at(trial, run.preprocess.spec, signs[index])
        pixels = subset.gather(index).to(device)
        yield changed(pixels, draws, run.preprocess, augment), subset.labels[index]


def _measured(
    run: Run, subset: Subset, trial: Trial, plain: np.ndarray, said: np.ndarray
) -> Measured:
    truth, size = subset.labels.numpy(), len(run.labels)
    before, after = plain == truth, said == truth
    lost = before & ~after
    return Measured(
        trial=trial,
        counts=confusion_matrix(truth, said, size),
        lost=np.bincount(truth[lost], minlength=size),
        won=np.bincount(truth[~before & after], minlength=size),
        names=confusion_matrix(truth[lost], said[lost], size),
    )


def dangers_of(
    curves: dict[str, tuple[Measured, ...]],
    ends: Iterable[Trial],
    labels: Sequence[str],
) -> tuple[Danger, ...]:
    """Test every class at the end of every range (McNemar, exact), Holm-adjusted."""
    cases = []
    for end in ends:
        (found,) = [m for m in curves[end.change] if m.trial == end]
        cases += [(found, k) for k in range(len(labels)) if found.counts[k].sum()]
    chances = [no_loss(int(m.lost[k]), int(m.won[k])) for m, k in cases]
    dangers = [
        _danger(m, k, chance, labels)
        for (m, k), chance in zip(cases, holm(chances), strict=True)
        if chance < LEVEL and (m.lost[k] - m.won[k]) >= LEAST_LOSS * m.counts[k].sum()
    ]
    return tuple(sorted(dangers, key=lambda d: d.after - d.before))


def _danger(m: Measured, k: int, chance: float, labels: Sequence[str]) -> Danger:
    count, right = int(m.counts[k].sum()), int(m.right[k])
    named, _, elsewhere = m.errors(k)
    return Danger(
        trial=m.trial,
        label=labels[k],
        before=(right + int(m.lost[k]) - int(m.won[k])) / count,
        after=right / count,
        interval=wilson(right, count),
        count=count,
        chance=chance,
        taken_for=labels[named],
        share=float(m.names[k][named] / m.lost[k]),
        elsewhere=elsewhere,
    )
