"""Error rates of the verdict on simulated runs of known quality.

Each row draws the predictions of runs from a known confusion matrix, and counts the
kinds of verdicts. The validation accuracy is the best of five independent epochs, which
exaggerates the selection in a real run. Claim: a good run gets a wrong complaint in at
most 2 % of the draws with at least 75 test images, and in at most 4 % with 30; a run at
chance is called better in at most 1 %.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from record import save
from striate.run.train_accuracy import CorrectCount
from striate.run.verdict_facts import ClassCount, VerdictFacts
from striate.run.verdict_rules import conclude

DRAWS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
EPOCHS = 5  # independent epochs of which the best is selected on validation


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """Class shares, true recall of each class, and numbers of images of a run."""

    name: str
    shares: Sequence[float]
    recall: Sequence[float]
    test: int
    val: int
    train_accuracy: float
    train: int = 400
    # Errors are spread by the class shares; otherwise evenly.
    by_share: bool = False


def even(name: str, classes: int, recall: float, test: int, train: float):
    """Return a run with classes of equal size and equal recall."""
    return SimulatedRun(
        name=name,
        shares=[1 / classes] * classes,
        recall=[recall] * classes,
        test=test,
        val=max(test * 3 // 5, 5),
        train_accuracy=train,
    )


def draw(run: SimulatedRun, rng: np.random.Generator) -> VerdictFacts:
    """Draw the predictions of a run, and return the facts for the verdict."""
    truth, predicted = _predictions(run, run.test, rng)
    classes = tuple(
        ClassCount(
            name=f"c{k}",
            images=int((truth == k).sum()),
            correct=int(((truth == k) & (predicted == k)).sum()),
            predicted=int((predicted == k).sum()),
        )
        for k in range(len(run.shares))
        if (truth == k).any()
    )
    epochs = [_predictions(run, run.val, rng) for _ in range(EPOCHS)]
    val = max(int((t == p).sum()) for t, p in epochs)
    train = int(rng.binomial(run.train, run.train_accuracy))
    return VerdictFacts(
        split="test",
        classes=classes,
        predicted_classes=tuple(f"c{k}" for k in np.unique(predicted)),
        train=CorrectCount(train, run.train),
        reference=CorrectCount(val, run.val),
        reference_split="val",
        train_counts={f"c{k}": 100 for k in range(len(run.shares))},
    )


def _predictions(
    run: SimulatedRun, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    size = len(run.shares)
    truth = rng.choice(size, count, p=run.shares)
    other = rng.integers(1, size, count) if size > 1 else 0
    wrong = (truth + other) % size
    if run.by_share:
        return truth, rng.choice(size, count, p=run.shares)
    is_right = rng.random(count) < np.asarray(run.recall)[truth]
    return truth, np.where(is_right, truth, wrong)


def chance(shares: Sequence[float], test: int) -> SimulatedRun:
    """Return a run whose predictions do not depend on the images."""
    texts = "/".join(f"{100 * s:.0f}" for s in shares[:3])
    name = f"at chance, {len(shares)} classes ({texts}{' …' * (len(shares) > 3)} %)"
    return SimulatedRun(
        name=name,
        shares=shares,
        recall=shares,
        test=test,
        val=test * 3 // 5,
        train_accuracy=1.0,
        by_share=True,
    )


RUNS = (
    *(chance([0.5, 0.5], n) for n in (30, 75, 500)),
    *(chance([0.25] * 4, n) for n in (30, 75, 500)),
    chance([0.01] * 100, 500),
    *(chance([0.9, 0.1], n) for n in (75, 500)),
    chance([0.7, 0.1, 0.1, 0.1], 75),
    *(even("good, 2 classes, recall 95 %", 2, 0.95, n, 1.0) for n in (30, 75, 500)),
    *(even("good, 4 classes, recall 90 %", 4, 0.90, n, 0.97) for n in (30, 75, 500)),
    even("good, 10 classes, recall 80 %", 10, 0.80, 150, 0.85),
    even("good, 100 classes, recall 60 %", 100, 0.60, 1000, 0.65),
    *(even("overfitting, 4 classes, 60 %", 4, 0.60, n, 1.0) for n in (30, 75, 500)),
    *(even("overfitting, 4 classes, 80 %", 4, 0.80, n, 1.0) for n in (75, 500)),
    even("good, 4 classes, recall 90 %", 4, 0.90, 12, 0.97),
    even("at chance, 4 classes", 4, 0.25, 8, 1.0),
)


def main() -> None:
    """Simulate all runs, print and save the shares of each kind of verdict."""
    rng = np.random.default_rng(0)
    lines = ["| simulated run | test images | kinds of verdicts |", "|---|---|---|"]
    for run in RUNS:
        kinds = Counter(conclude(draw(run, rng))[0] for _ in range(DRAWS))
        shares = (f"{kind} {100 * n / DRAWS:.1f} %" for kind, n in kinds.most_common())
        lines.append(f"| {run.name} | {run.test} | {', '.join(shares)} |")
        print(lines[-1], flush=True)
    lines.append(
        f"\nn = {DRAWS:,} draws a row. The best of {EPOCHS} epochs is selected."
    )
    save("verdict", "Error rates of the verdict", "\n".join(lines))


if __name__ == "__main__":
    main()
