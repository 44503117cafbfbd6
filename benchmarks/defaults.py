"""The default of `striate train DATA` against other settings, on small image sets.

Goals: the default is within 2 points of the best of transfer and scratch recipes, and
its expected calibration error (ECE) is within the range of a perfectly calibrated model
with the same probabilities.

Each candidate is a command line, run in a process of its own, with the same splits. The
progress shows validation accuracy only; settings must be chosen by it. The test
accuracy is printed in the final table only. With `--log FILE`, finished runs are kept
and not repeated, and `--table` writes the table of what is in the file.

`python benchmarks/defaults.py --sets photographs,digits --candidates default,transfer
--seeds 0 --log defaults.jsonl`
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from log import Log
from record import save
from small_sets import SMALL_SETS
from striate.metrics.calibration import top_label_ece
from striate.run.run import Run, load_run

_FROZEN = "transfer {data} --model mobilenet_v2 --pretrained mobilenet_v2"
_FAST = "train {data} --optimizer muon --lr 0.02 --weight-decay 0.05 --batch-size 32"
_SLIM = "train {data} --model antialiased_resnet18_slim --schedule cosine"

CANDIDATES = {
    "default": "train {data}",
    "transfer": f"{_FROZEN} --image-size 224",
    "transfer-own-size": _FROZEN,
    "transfer-auto": f"{_FROZEN} --image-size 224 --cut auto",
    "fine-tuned": "train {data} --pretrained mobilenet_v2",
    "scratch": "train {data} --model auto",
    "scratch-60": "train {data} --model auto --epochs 60",
    "scratch-six": "train {data} --model auto --epochs 60 --augment six",
    "preset": "train {data} --preset photographs",
    "fast": f"{_FAST} --model fast_small --epochs 20",
    "fast-shift": f"{_FAST} --model fast_small --epochs 40 --shift 0.07",
    "fast-six": f"{_FAST} --model fast_small --epochs 40 --augment six",
    "wide-shift": f"{_FAST} --model fast_small_wide --epochs 40 --shift 0.07",
    "resnet20": "train {data} --model cifar_resnet20 --epochs 60 --batch-size 32",
    "resnet20-six": "train {data} --model cifar_resnet20 --epochs 60 --batch-size 32 "
    "--augment six",
    "slim64": f"{_SLIM} --image-size 64 --epochs 60 --batch-size 32 --lr 0.002 "
    "--augment flip --scale 0.15 --shift 0.0625 --color 0.1",
}
USUAL = "default,transfer,scratch,preset,fast-shift,fast-six,resnet20-six"
Figures = dict[str, Any]


def measure(command: str, data: str, seed: int, folder: Path) -> Figures:
    """Run a command and return its accuracies, seconds and calibration errors."""
    words = [data if word == "{data}" else word for word in shlex.split(command)]
    fixed = ["--seed", str(seed), "--out", str(folder / "run"), "--quiet"]
    words += [*fixed, "--overwrite", "--cache", str(folder / "cache")]
    began = time.perf_counter()
    # The command is one of `CANDIDATES`.
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "striate", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-3:]}
    return results(load_run(folder / "run"), seed) | {"seconds": seconds}


def results(run: Run, seed: int) -> Figures:
    """Return accuracies and calibration errors of a run."""
    test = run.predictions("test")
    correct = test.predicted == test.truth
    low, mean, high = calibrated_ece(test.probs, seed)
    return {
        "model": run.recipe.model,
        "val": float(run.scores["val"]["accuracy"]),
        "val_count": int(run.scores["val"]["count"]),
        "test": float(correct.mean()),
        "count": len(correct),
        "ece": top_label_ece(test.probs, correct),
        "calibrated_ece": mean,
        "ece_range": [low, high],
    }


def calibrated_ece(
    probs: np.ndarray, seed: int, draws: int = 1000
) -> tuple[float, float, float]:
    """Return the ECE of a perfectly calibrated model: 2.5 %, mean, 97.5 %.

    The true classes are drawn from the predicted probabilities.
    """
    rng = np.random.default_rng(seed)
    hits = rng.random((draws, len(probs))) < probs.max(1)
    errors = [top_label_ece(probs, correct) for correct in hits]
    low, high = np.quantile(errors, (0.025, 0.975))
    return float(low), float(np.mean(errors)), float(high)


def table(log: Log, sets: list[str], names: list[str], seeds: list[int]) -> str:
    """Return the Markdown tables of all finished runs."""
    head = "| set | candidate | n | validation | test | s | ECE | calibrated (95 %) |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    summary = ["| set | best by test | default behind | ECE of the default in range |"]
    summary.append("|---|---|---|---|")
    for data in sets:
        finished = {
            name: done for name in names if (done := _finished(log, data, name, seeds))
        }
        lines += [_row(data, name, done) for name, done in finished.items()]
        if len(finished) > 1 and "default" in finished:
            summary.append(_summary(data, finished))
    facts = f"Seeds {', '.join(map(str, seeds))} (split and training). ECE: 15 bins of "
    facts += "equal width, predicted class. Calibrated: ECE of a perfectly calibrated "
    facts += "model with the same probabilities, mean and 95 % range over simulations."
    commands = [f"- {name}: `striate {CANDIDATES[name]}`" for name in names]
    return "\n".join([*summary, "", *lines, "", facts, "", *commands]).replace(
        "{data}", "DATA"
    )


def _finished(log: Log, data: str, name: str, seeds: list[int]) -> list[Figures]:
    every = [log.stored(_key(data, name, seed)) for seed in seeds]
    return [figures for figures in every if figures]


def _key(data: str, name: str, seed: int) -> str:
    return f"{data} {name} {seed}"


def _mean(done: list[Figures], key: str) -> float:
    return statistics.mean(figures[key] for figures in done)


def _spread(done: list[Figures], key: str) -> str:
    values = [100 * figures[key] for figures in done]
    if len(values) == 1:
        return f"{values[0]:.1f} %"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} %"


def _in_range(figures: Figures) -> bool:
    return bool(figures["ece"] <= figures["ece_range"][1])


def _row(data: str, name: str, done: list[Figures]) -> str:
    low, high = (statistics.mean(f["ece_range"][i] for f in done) for i in (0, 1))
    cells = (
        *(data, name, f"{done[0]['count']} × {len(done)}"),
        *(_spread(done, "val"), _spread(done, "test"), f"{_mean(done, 'seconds'):.0f}"),
        f"{100 * _mean(done, 'ece'):.1f} %",
        f"{100 * _mean(done, 'calibrated_ece'):.1f} % "
        f"({100 * low:.1f}–{100 * high:.1f} %)",
    )
    return f"| {' | '.join(cells)} |"


def _summary(data: str, finished: dict[str, list[Figures]]) -> str:
    others = [name for name in finished if name != "default"]
    best = max(others, key=lambda name: _mean(finished[name], "test"))
    default = finished["default"]
    behind = 100 * (_mean(finished[best], "test") - _mean(default, "test"))
    good = sum(map(_in_range, default))
    return f"| {data} | {best} | {behind:+.1f} points | {good} of {len(default)} |"


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default=",".join(SMALL_SETS), help="comma-separated")
    parser.add_argument("--candidates", default=USUAL, help=", ".join(CANDIDATES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--log", type=Path, help="file of finished runs (JSON lines)")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def main() -> None:
    """Run what is not finished, print and save the table."""
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    sets, names = options.sets.split(","), options.candidates.split(",")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    log = Log(options.log)
    with tempfile.TemporaryDirectory() as temporary:
        for data in [] if options.table else sets:
            source = SMALL_SETS[data](Path(temporary) / data)
            for seed in seeds:
                for name in names:
                    run_once(log, data, name, seed, source)
    body = table(log, sets, names, seeds)
    print(body)
    save("defaults", "Default settings on small image sets", body)


def run_once(log: Log, data: str, name: str, seed: int, source: str) -> None:
    """Run a candidate, unless the log has it, and print its validation accuracy."""
    key = _key(data, name, seed)
    figures = log.stored(key)
    if not figures:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(CANDIDATES[name], source, seed, Path(folder))
    shown = figures.get("error")
    if not shown:  # a failed run is repeated by the next start
        log.get(key, lambda: figures)
        val = f"validation {100 * figures['val']:.1f} % (n = {figures['val_count']})"
        shown = f"{val}, {figures['seconds']:.0f} s, {figures['model']}"
    print(f"{key}: {shown}", flush=True)


if __name__ == "__main__":
    main()
