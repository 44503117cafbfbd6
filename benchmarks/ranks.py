"""Training speed of two processes under torchrun against one process with two threads.

The loss curves of networks without batch norm must be the same (1e-3). Times are the
seconds between epochs in `timing.csv`, so start-up time does not count. Both use the
same fixed execution mode, and no dropout, because each rank has its own random numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import save
from speeds import speeds

# Networks, sides, and which share of Fashion-MNIST takes some ten seconds.
WORK = {
    "tutorial_gray, 28²": ("tutorial_gray", "28", "0.3"),
    "tutorial_color, 32²": ("tutorial_color", "32", "0.1"),
    "cifar_resnet20, 32²": ("cifar_resnet20", "32", "0.05"),
}
BATCH = "128"
RUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
TOLERANCE = 1e-3  # of the losses, relative; for networks without batch norm
ONE, TWO = "one process, 2 threads", "two processes, 1 thread"
ALONE = "one process, 1 thread"


def trained(folder: Path, work: tuple[str, str, str], side: str, epochs: int) -> Path:
    """Train in new processes; return the run folder."""
    model, size, fraction = work
    how = ["--model", model, "--image-size", size, "--batch-size", BATCH]
    how += ["--in-chans", "1" if model == "tutorial_gray" else "3"]
    how += ["--fraction", fraction, "--epochs", str(epochs), "--precision", "fp32"]
    how += ["--layout", "nhwc", "--save-every", "1e9"]
    how += ["--val-fraction", "0.02"]
    how += ["--dropout", "0"] if model == "tutorial_color" else []
    words = ["striate", "train", "fashion-mnist", *how, "--out", str(folder), "--quiet"]
    if side != TWO:
        command = [sys.executable, "-m", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": side.split()[2]}
    else:
        command = [*RUN, "--nproc-per-node", "2", "-m", *words]
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(  # noqa: S603 - our own words
        command, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return folder


def losses(run: Path) -> list[float]:
    """Return the training and validation losses of all epochs of a run."""
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row[name]) for row in rows for name in ("train_loss", "val_loss")]


def speed(run: Path) -> float:
    """Return the training speed in images per second, excluding the first epoch."""
    with (run / "timing.csv").open() as file:
        ends = [float(row["seconds"]) for row in csv.DictReader(file)]
    splits = json.loads((run / "manifest.json").read_text())["data"]["splits"]
    return float(splits["train"] * (len(ends) - 1) / (ends[-1] - ends[0]))


def apart(one: list[float], other: list[float]) -> float:
    """Return the largest relative difference of two loss curves."""
    return max(abs(a - b) / a for a, b in zip(one, other, strict=True))


def measured(work: tuple[str, str, str], rounds: int, epochs: int) -> tuple[str, ...]:
    """Return the cells of a table row: medians, ratios and curve differences."""
    found: dict[str, list[float]] = {ONE: [], TWO: []}
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for side in (ONE, TWO) if number % 2 else (TWO, ONE):
                place = Path(folder) / f"{number}-{side[:3]}"
                run = trained(place, work, side, epochs)
                found[side].append(speed(run))
                curves[side] = losses(run)
        alone = losses(trained(Path(folder) / "alone", work, ALONE, epochs))
    ratios = [two / one for one, two in zip(found[ONE], found[TWO], strict=True)]
    one, two = (statistics.median(found[side]) for side in (ONE, TWO))
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f})"
    ours, itself = (apart(curves[ONE], other) for other in (curves[TWO], alone))
    return f"{one:,.0f}", f"{two:,.0f}", ratio, f"{ours:.1e}", f"{itself:.1e}"


def main() -> None:
    """Run the benchmark, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", default="", help="run only names with this prefix")
    options = parser.parse_args()
    lines = [
        f"| work | {ONE} | {TWO} | ratio (worst) | curves differ by | with 1 thread |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, work in WORK.items():
        if not name.startswith(options.only):
            continue
        cells = measured(work, options.rounds, options.epochs)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    body = "\n".join(lines)
    body += f"\n\nImages a second, medians of {options.rounds} rounds, interleaved. "
    body += (
        f"Goal: curves within {TOLERANCE:g} without batch norm, or as far as those of "
    )
    body += "one process with one thread and with two, which add in another order.\n\n"
    body += speeds()
    if not options.only:
        save("ranks", "Two processes against one", body)


if __name__ == "__main__":
    main()
