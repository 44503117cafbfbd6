"""Two runs on the images that both judged, and which of them flipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from striate.metrics.paired import (
    Interval,
    PairedCounts,
    balanced_accuracy_difference,
    mean_difference,
)
from striate.workflows.compare.evaluated_run import Contender, Key


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairing:
    """Two contenders and where each has the images that both judged.

    Args:
        first: What is compared with.
        second: What is compared.
        rows: Positions of the common images in the first's and second's answers.
        relabeled: Images left out because the two hold different labels for them.
    """

    first: Contender
    second: Contender
    rows: tuple[np.ndarray, np.ndarray] = field(repr=False)
    relabeled: int

    @property
    def count(self) -> int:
        """Return how many images are common."""
        return len(self.rows[0])

    @property
    def left_out(self) -> tuple[int, int]:
        """Return how many images only the first, and only the second judged."""
        return len(self.first.keys) - self.count, len(self.second.keys) - self.count

    @cached_property
    def right(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which common images each gets right, (N,) bool."""
        return self.first.right[self.rows[0]], self.second.right[self.rows[1]]

    @cached_property
    def paired(self) -> PairedCounts:
        """Return the four counts."""
        return PairedCounts.of(*self.right)

    @cached_property
    def classes(self) -> tuple[tuple[str, PairedCounts], ...]:
        """Return the four counts of each class that occurs."""
        truth = self.first.predictions.truth[self.rows[0]]
        one, two = self.right
        return tuple(
            (name, PairedCounts.of(one[truth == i], two[truth == i]))
            for i, name in enumerate(self.first.predictions.labels.names)
            if (truth == i).any()
        )

    @cached_property
    def balanced(self) -> tuple[float, Interval]:
        """Return the difference in balanced accuracy and its 95 % interval."""
        return balanced_accuracy_difference([paired for _, paired in self.classes])

    @cached_property
    def loss(self) -> tuple[float, Interval | None]:
        """Return the difference in mean cross-entropy and its 95 % interval."""
        return mean_difference(self.costs)

    @cached_property
    def costs(self) -> np.ndarray:
        """Return what the second loses over the first for each image, (N,) nats."""
        one, two = self.first.predictions, self.second.predictions
        costs: np.ndarray = two.losses[self.rows[1]] - one.losses[self.rows[0]]
        return costs


def pair(first: Contender, second: Contender) -> Pairing:
    """Find the images that two runs both judged under the same label."""
    places = {key: i for i, key in enumerate(second.keys)}
    common = [(i, places[key]) for i, key in enumerate(first.keys) if key in places]
    rows = np.array(common, dtype=np.int64).reshape(-1, 2)
    lone = set(first.keys) - set(second.keys), set(second.keys) - set(first.keys)
    relabeled = Counter(c for c, _, _ in lone[0]) & Counter(c for c, _, _ in lone[1])
    return Pairing(
        first=first,
        second=second,
        rows=(rows[:, 0], rows[:, 1]),
        relabeled=relabeled.total(),
    )


@dataclass(frozen=True, kw_only=True)
class Flip:
    """An image that one side gets right more often than the other.

    Args:
        path: Where it came from.
        label: What it is.
        said: What the first and the second say, most often where they say several.
        sure: Their mean probabilities for that.
        right: How often each is right, of `times`.
        times: Pairs of runs that judged it; 1 where two runs are compared.
        cost: What the second loses over the first, nats a time.
        source: A run that judged it, and its position there.
    """

    path: str
    label: str
    said: tuple[str, str]
    sure: tuple[float, float]
    right: tuple[int, int]
    times: int
    cost: float
    source: tuple[Contender, int] = field(repr=False, compare=False)

    @property
    def gained(self) -> bool:
        """Tell whether it is the second that gets it right more often."""
        return self.right[1] > self.right[0]


def flips(pairings: Sequence[Pairing]) -> tuple[Flip, ...]:
    """Return the images whose answers changed sides, the plainest first.

    Args:
        pairings: The same two sides, once, or once a seed.
    """
    seen: dict[Key, list[tuple[Pairing, int]]] = {}
    for pairing in pairings:
        for k, i in enumerate(pairing.rows[0]):
            seen.setdefault(pairing.first.keys[i], []).append((pairing, k))
    found = [_flip(judged) for judged in seen.values() if _changed(judged)]
    return tuple(sorted(found, key=_plainness))


def _changed(judged: Sequence[tuple[Pairing, int]]) -> bool:
    return sum(int(p.right[1][k]) - int(p.right[0][k]) for p, k in judged) != 0


def _plainness(flip: Flip) -> tuple[float, float]:
    share = abs(flip.right[1] - flip.right[0]) / flip.times
    return -share, -abs(flip.cost)


def _flip(judged: Sequence[tuple[Pairing, int]]) -> Flip:
    pairing, k = judged[0]
    row = int(pairing.rows[0][k])
    answers = pairing.first.predictions
    one, two = (_said(judged, side) for side in (0, 1))
    return Flip(
        path=answers.paths[row],
        label=answers.labels[int(answers.truth[row])],
        said=(one[0], two[0]),
        sure=(one[1], two[1]),
        right=(_times_right(judged, 0), _times_right(judged, 1)),
        times=len(judged),
        cost=sum(float(p.costs[k]) for p, k in judged) / len(judged),
        source=_larger((pairing.first, row), (pairing.second, int(pairing.rows[1][k]))),
    )


def _larger(*sources: tuple[Contender, int]) -> tuple[Contender, int]:
    """Return the run that looks at the image in more detail, the first if equal."""
    specs = [run.run.preprocess.spec for run, _ in sources]
    return sources[int(np.argmax([spec.height * spec.width for spec in specs]))]


def _times_right(judged: Sequence[tuple[Pairing, int]], side: int) -> int:
    return sum(int(p.right[side][k]) for p, k in judged)


def _said(judged: Sequence[tuple[Pairing, int]], side: int) -> tuple[str, float]:
    """Return a side's most frequent answer and its mean probability for that."""
    rows = []
    for pairing, k in judged:
        party = (pairing.first, pairing.second)[side]
        rows.append(party.predictions.probs[pairing.rows[side][k]])
    probs = np.stack(rows)
    said = Counter(probs.argmax(1).tolist()).most_common(1)[0][0]
    return judged[0][0].first.predictions.labels[said], float(probs[:, said].mean())
