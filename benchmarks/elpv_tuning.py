"""ELPV by fine-tuning (goal P7): pretrained MobileNetV2 with frozen early blocks.

Goals: more than the paper's fine-tuned VGG-19 (88.42 %, on a GPU) in at most ten
minutes per split on two cores, and at least 90 % in thirty minutes. Five stratified
75/25 splits are used. All settings are in this file; they were chosen on training
images of the first split. One twentieth of each training split is the validation split,
which decides which epoch is best. The test split is evaluated once. `--networks 3`
averages three networks, which fit into half an hour.

The time is measured from the CSV table to the evaluated run, including program start
and image decoding.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elpv_cells import (
    LEAK,
    PUBLISHED,
    Cell,
    Judged,
    cells,
    judged,
    splits,
    together,
    write_table,
)
from log import Log
from record import mean_deviation, save
from speeds import speeds
from striate.run.run import Run

VAL = "0.05"  # of the training split
SETTINGS = {
    "model": "mobilenet_v2",
    "pretrained": "mobilenet_v2",
    "in-chans": "1",
    "image-size": "224",
    "freeze": "features.0,features.1,features.2,features.3",
    "epochs": "12",
    "batch-size": "32",
    "lr": "0.001",
    "flip": "both",
    "shift": "0.03",
    "ema": "0.98",
    "test-view": "flip",
}
COLUMNS = ("accuracy", "balanced", "f1", "auc", "cost", "seconds")


def sureness(cell: Cell) -> str:
    """Return one of four class names: label with the experts' defect probability."""
    return f"{cell.label} {float(cell.probability):.2f}"


def one(table: Path, folder: Path, seed: int, given: list[str]) -> dict[str, Any]:
    """Fine-tune on one split with the command-line program, in a separate process."""
    words = [f"--{name}={value}" for name, value in SETTINGS.items()]
    words += [f"--val-fraction={VAL}", f"--seed={seed}", "--cache=off", "--quiet"]
    command = [sys.executable, "-m", "striate", "train", str(table), *words, *given]
    out = folder / f"run{seed}"
    began = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own words
        [*command, "--out", str(out)], capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found = judged(Run(out))
    answers = {"truth": found.truth.tolist(), "probabilities": found.probs.tolist()}
    return {**answers, "seconds": seconds}


def row(split: int, found: dict[str, float]) -> str:
    """Return the table row of one split."""
    shares = [f"{100 * found[name]:.2f} %" for name in COLUMNS[:3]]
    rest = [f"{found['auc']:.4f}", f"{found['cost']:.4f}", f"{found['seconds']:.0f}"]
    return "| " + " | ".join([str(split), *shares, *rest]) + " |"


def main() -> None:
    """Fine-tune on every split, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--networks", type=int, default=1, help="networks per split")
    parser.add_argument("--log", type=Path, help="results file, to continue from")
    options, given = parser.parse_known_args()
    every, log = cells(), Log(options.log)
    alone: list[dict[str, float]] = []
    mean: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, test in splits(every, options.splits):
            table = folder / f"split{split}.csv"
            write_table(every, test, table, sureness)
            several = []
            for k in range(options.networks):
                seed = split + k * options.splits
                key = " ".join([f"split {split} seed {seed}", *given])
                make = partial(one, table, folder, seed, given)
                told = log.get(key, make)
                answers = (np.array(told[name]) for name in ("truth", "probabilities"))
                several.append(Judged(*answers, told["seconds"]))
                print(row(split, several[-1].figures()), flush=True)
            alone.append(several[0].figures())
            mean.append(together(several).figures())
    report(alone, mean, options.networks, given)


def table_of(found: list[dict[str, float]]) -> str:
    """Return a table with one row per split, and the means."""
    said = [f"{k} {mean_deviation([f[k] for f in found])}" for k in COLUMNS[:3]]
    auc = statistics.mean(f["auc"] for f in found)
    slowest = max(f["seconds"] for f in found)
    lines = [f"| split | {' | '.join(COLUMNS)} |", "|---" * 7 + "|"]
    lines += [row(split, one) for split, one in enumerate(found)]
    head = f"**Mean of {len(found)} splits: {', '.join(said)}, ROC-AUC {auc:.4f}; "
    return f"{head}slowest split {slowest:.0f} s.**\n\n" + "\n".join(lines)


def report(
    alone: list[dict[str, float]],
    mean: list[dict[str, float]],
    networks: int,
    given: list[str],
) -> None:
    """Print and save the means and the tables."""
    settings = " ".join(f"--{name} {value}" for name, value in SETTINGS.items())
    body = [
        f"`striate train TABLE {settings} --val-fraction {VAL} {' '.join(given)}`, "
        f"four classes (defect or sound, as sure as the experts were), defect where "
        f"theirs add up to more than one half; {PUBLISHED}.",
        "## One network",
        table_of(alone),
    ]
    if networks > 1:
        body += [f"## The mean of {networks} networks", table_of(mean)]
    body += [LEAK, speeds()]
    print("\n\n".join(body))
    save("elpv-tuning", "ELPV by fine-tuning", "\n\n".join(body))


if __name__ == "__main__":
    main()
