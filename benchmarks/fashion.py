"""The bundled Fashion-MNIST recipes, over three seeds.

Claims: `fashion-grey` ≥ 91.6 % (published for two convolutions with pooling),
`fashion-best` ≥ 93.4 %. The validation part is dealt from the 60,000 training
pictures; the 10,000 test pictures are judged once a seed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from record import mean_deviation, save
from striate.runs.presets import PRESETS
from striate.runs.recipe import make_recipe
from striate.runs.train import train_recipe

SEEDS = range(3)
GOALS = {"fashion-grey": 91.6, "fashion-best": 93.4}


def measure(preset: str, folder: Path) -> str:
    """Train one preset over all seeds and return its table."""
    lines = [f"## {preset}\n", "| seed | test accuracy | validation | training |"]
    lines.append("|---|---|---|---|")
    accuracies = []
    for seed in SEEDS:
        recipe = make_recipe(PRESETS[preset].settings, {"seed": seed})
        run = train_recipe(recipe, out=folder / f"{preset}-{seed}", quiet=True)
        test, val = (run.scores[part]["accuracy"] for part in ("test", "val"))
        accuracies.append(test)
        seconds = run.manifest["seconds"]
        lines.append(
            f"| {seed} | {100 * test:.2f} % | {100 * val:.2f} % | {seconds:.0f} s |"
        )
        print(preset, lines[-1], flush=True)
    mean = mean_deviation(accuracies)
    lines.append(
        f"\nMean {mean} (n = {len(accuracies)} seeds; goal {GOALS[preset]} %).\n"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure the presets named on the command line, else all."""
    chosen = sys.argv[1:] or list(GOALS)
    with tempfile.TemporaryDirectory() as folder:
        tables = [measure(preset, Path(folder)) for preset in chosen]
    save("-".join(chosen), "Fashion-MNIST, bundled recipes", "\n".join(tables))


if __name__ == "__main__":
    main()
