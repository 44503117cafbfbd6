"""Transfer plan against an exhaustive search over cut points and batch-norm modes.

Goal: the accuracy of the planned configuration is within 1 percentage point of the best
configuration, in at most a tenth of the search's CPU time.

The search fine-tunes behind every cut point with frozen and with adapting batch-norm
statistics, and fits a head alone. It chooses the configuration with the best validation
accuracy. Cached features are shared between configurations. The plan starts with an
empty cache. Both choices are evaluated once on the test split. The best test accuracy
of all configurations is printed for comparison; no method could choose by the test
split.

Datasets: Fashion-MNIST with 40 images per class (MobileNetV2 at 64 px), and ELPV.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from elpv_cells import LEAK, cells, splits, write_table
from log import Log
from record import save
from speeds import speeds
from striate.core.malloc import keep_freed_memory
from striate.data.image_data import ImageData
from striate.finetune.cut_points import find_cut_points
from striate.finetune.split_model import probe_batch
from striate.run.prepare_run import (
    build_model,
    load_recipe,
    prepare_model,
    resolve_recipe,
)
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.run.transfer_plan import LOGISTIC
from striate.workflows.transfer.heads import TUNED
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.transfer import transfer_recipe

A_CLASS = 40
VAL = 0.01  # of Fashion-MNIST's 60,000
JUDGED = 2000  # test images at most, or the search would do little but judge
MODEL = "mobilenet_v2"


@dataclass(frozen=True)
class Way:
    """Result of one configuration of the search."""

    name: str
    val: float
    loss: float
    test: float
    seconds: float


def fashion(folder: Path, options: argparse.Namespace) -> Recipe:
    """Return a recipe for Fashion-MNIST with 40 training images per class."""
    dealt = {"data": "fashion-mnist", "val_fraction": VAL, "seed": options.seed}
    share = A_CLASS * 10 / len(load_recipe(Recipe(**dealt)).subset("train"))
    return Recipe(
        data="fashion-mnist",
        model=MODEL,
        pretrained=MODEL,
        image_size=options.side or 64,
        fraction=share,
        val_fraction=VAL,
        epochs=options.epochs,
        batch_size=32,
        seed=options.seed,
    )


def elpv(folder: Path, options: argparse.Namespace) -> Recipe:
    """Return a recipe for a stratified split of the ELPV solar cells."""
    every = cells()[:: options.every]
    for seed, test in splits(every, options.seed + 1):
        if seed == options.seed:
            write_table(every, test, folder / "cells.csv")
    return Recipe(
        data=str(folder / "cells.csv"),
        model=MODEL,
        pretrained=MODEL,
        image_size=options.side or 128,
        epochs=options.epochs,
        batch_size=32,
        seed=options.seed,
    )


SETS = {"fashion": fashion, "elpv": elpv}


def fewer(data: ImageData) -> ImageData:
    """Return data with about `JUDGED` evenly spaced test images."""
    test = data.subset("test")
    index = range(0, len(test), max(1, len(test) // JUDGED))
    return replace(data, subsets={**data.subsets, "test": test.take(index)})


def cuts_of(recipe: Recipe, data: ImageData) -> list[str]:
    """Return the names of all cut points except the last."""
    full = resolve_recipe(recipe, data)
    model = build_model(full, data)
    prepare_model(model, data, full)
    x = probe_batch((data.in_chans, *data.image_size))
    return [cut.name for cut in find_cut_points(model, x).cuts[:-1]]


def went(name: str, run: Run, seconds: float) -> Way:
    """Return the result of a run."""
    val, test = (run.scores[split] for split in ("val", "test"))
    return Way(name, val["accuracy"], val["loss"], test["accuracy"], seconds)


def one(
    name: str, recipe: Recipe, wanted: TransferOptions, data: ImageData, folder: Path
) -> tuple[Way, Run]:
    """Run one configuration; return the result (with CPU seconds) and the run."""
    began = time.process_time()
    run = transfer_recipe(recipe, wanted, data=data, out=folder / name, quiet=True)
    way = went(name, run, time.process_time() - began)
    print(
        f"{name:<24} val {100 * way.val:.2f} %  test {100 * way.test:.2f} %  "
        f"{way.seconds:.0f} s",
        flush=True,
    )
    return way, run


def searched(recipe: Recipe, data: ImageData, folder: Path, log: Log) -> list[Way]:
    """Return the results of all configurations; skip runs that are in the log."""
    wanted = {"head-alone": TransferOptions(head=LOGISTIC)}
    for cut in cuts_of(recipe, data):
        for mode in ("frozen", "adapting"):
            way = TransferOptions(cut=cut, head=TUNED, batch_norm=mode)
            wanted[f"{cut}-{mode}"] = way

    def go(name: str) -> dict[str, Any]:
        return asdict(one(name, recipe, wanted[name], data, folder)[0])

    return [Way(**log.get(name, partial(go, name))) for name in wanted]


def main() -> None:
    """Run plan and search, print and save the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--side", type=int, default=0, help="pixels; 0: 64 or 128")
    parser.add_argument("--every", type=int, default=1, help="use every n-th cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plan-only", action="store_true")
    parser.add_argument("--log", type=Path, help="results file, to continue from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = SETS[options.set](folder, options)
        data = fewer(load_recipe(recipe))
        apart = [replace(recipe, cache=str(folder / name)) for name in ("a", "b")]
        mine, run = one("plan", apart[0], TransferOptions(cut="auto"), data, folder)
        facts = run.manifest["transfer"]
        print(facts)
        if options.plan_only:
            return
        log = Log(options.log)
        ways = searched(apart[1], data, folder, log)
    report(options, data, mine, facts, ways, log.found)


def report(
    options: argparse.Namespace,
    data: ImageData,
    mine: Way,
    facts: dict[str, object],
    ways: list[Way],
    earlier: int,
) -> None:
    """Print and save the comparison of plan and search."""
    best = max(ways, key=lambda way: (way.val, -way.loss))
    lucky = max(ways, key=lambda way: way.test)
    spent = sum(way.seconds for way in ways)
    splits = ", ".join(
        f"{name} {len(subset):,}" for name, subset in data.subsets.items()
    )
    chosen = f"{facts['head']} behind {facts['cut']}"
    lines = ["| way | validation | test | s |", "|---|---|---|---|"]
    lines += [
        f"| {w.name} | {100 * w.val:.2f} % | {100 * w.test:.2f} % | {w.seconds:.0f} |"
        for w in (mine, *ways)
    ]
    body = [
        f"{options.set}, {MODEL} at {data.image_size[0]} px, {splits}, "
        f"{options.epochs} epochs, seed {options.seed}.",
        f"**Plan: {chosen}, test {100 * mine.test:.2f} %; search: {best.name}, test "
        f"{100 * best.test:.2f} %; difference {100 * (mine.test - best.test):+.2f} "
        f"points in {100 * mine.seconds / spent:.1f} % of the processor time "
        f"({mine.seconds:.0f} of {spent:.0f} s).**",
        f"Best on test of all, which nobody could know: {lucky.name}, "
        f"{100 * lucky.test:.2f} %. Plan in the manifest: {facts['plan']}.",
        *([f"{earlier} of {len(ways)} ways: an earlier start's."] if earlier else []),
        "\n".join(lines),
        *([LEAK] if options.set == "elpv" else []),
        speeds(),
    ]
    print("\n\n".join(body))
    name = f"planner-{options.set}-{options.seed}"
    save(name, "The plan against a search", "\n\n".join(body))


if __name__ == "__main__":
    main()
