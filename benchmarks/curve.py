"""Accuracy of learning-curve predictions for more images, on Fashion-MNIST.

A power law is fitted to results with at most an eighth of the training images. The law
predicts the error for two, four and eight times as many images, and these runs are
trained too. Claim: the measured means are within the predicted 95 % intervals.

With a folder as argument, an interrupted benchmark can be continued.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from record import save
from striate.run.recipe import Recipe
from striate.workflows.data_curve.learning_curve import LearningCurve, learning_curve
from striate.workflows.data_curve.power_law import fit_power_law

FRACTIONS = tuple(2.0**-power for power in range(6, -1, -1))
KNOWN = 4  # fractions that the law is fitted to
SEEDS = 3
RECIPE = Recipe(
    data="fashion-mnist",
    model="tutorial_gray",
    epochs=2,
    batch_size=128,
    val_fraction=0.05,
)


def compare(curve: LearningCurve) -> str:
    """Return a table of measured and predicted accuracies."""
    law = fit_power_law(curve.points[:KNOWN])
    lines = ["| fraction | images | measured accuracy | foretold | 95 % interval | |"]
    lines.append("|---|---|---|---|---|---|")
    for place, (fraction, point) in enumerate(
        zip(curve.fractions, curve.points, strict=True)
    ):
        told = law.forecast(point.images)
        mean = f"{100 * (1 - point.mean):.2f} ± {100 * point.deviation:.2f} %"
        inside = "within" if told.low <= point.mean <= told.high else "outside"
        cells = [f"1/{round(1 / fraction)}", f"{point.images:,.0f}", mean]
        if place < KNOWN:
            cells += ["fitted", "", ""]
        else:
            low, high = 100 * (1 - told.high), 100 * (1 - told.low)
            cells += [f"{100 * (1 - told.error):.2f} %", f"{low:.2f}–{high:.2f} %"]
            cells.append(inside)
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(
        f"\nn = {SEEDS} seeds a fraction, {curve.points[0].test_images:,} test "
    )
    lines.append(f"images. Law: {law.floor:.4f} + {law.gain:.3g}·n^−{law.exponent:.2f}")
    return "\n".join(lines)


def main() -> None:
    """Train with all fractions, print and save the results."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(sys.argv[1] if len(sys.argv) > 1 else folder) / "fashion"
        curve = learning_curve(
            RECIPE, fractions=FRACTIONS, seeds=SEEDS, out=out, log=print
        )
        body = compare(curve)
    print(body)
    save("curve", "A learning curve tried on what it foretold, Fashion-MNIST", body)


if __name__ == "__main__":
    main()
