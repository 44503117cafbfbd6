"""Ablation of the preset `photographs` on ELPV solar cells, at equal CPU time.

Each variant is the preset without one component, or the default settings. The number of
epochs is chosen so that all variants take the same time, estimated from two epochs. The
data split depends on the seed of the run. Variants are compared on validation images;
`--part test` evaluates the final choice once on the test split. No module ids are
published with the cells, so cells of one module can be in several splits.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from elpv import write_csv
from record import mean_deviation, save
from striate.models.catalogue import register_model
from striate.models.resnet import BLOCKS, IMAGENET, ResNetConfig, resnet
from striate.run.parse_settings import make_recipe
from striate.run.presets import PRESETS
from striate.run.run import Run
from striate.workflows.train.train import train_recipe

PRESET = PRESETS["photographs"].settings
TRIAL = 2  # epochs, by which an arm's epochs are reckoned
SLIM = ResNetConfig(blocks=BLOCKS[18], width=32)
register_model("resnet18_slim", image=IMAGENET, classes=1000, summary="for comparison")(
    partial(resnet, config=SLIM)
)
UNCHANGED = {"scale": 0.0, "shift": 0.0, "color": 0.0}
ARMS: dict[str, Mapping[str, Any]] = {
    "photographs": PRESET,
    "without growing": PRESET | {"progressive_resize": 1.0},
    "without the blur": PRESET | {"model": "resnet18_slim"},
    "without mixing": PRESET | {"mixup": 0.0},
    "without changes": PRESET | {"augment": "none", **UNCHANGED},
    "one cycle": PRESET | {"schedule": "one_cycle"},
    "defaults": {"image_size": PRESET["image_size"]},
}


def trained(table: Path, settings: Mapping[str, Any]) -> tuple[Run, float]:
    """Train once; return the run and the CPU time in seconds."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        recipe = make_recipe({"data": str(table), "cache": "off"}, settings)
        run = train_recipe(recipe, out=Path(folder) / "run", quiet=True)
        _ = run.scores  # before the folder goes
    return run, time.process_time() - began


def epochs_for(table: Path, settings: Mapping[str, Any], seconds: float) -> int:
    """Return the number of epochs of a variant that take the given CPU time."""
    if settings.get("progressive_resize", 1.0) < 1:
        return int(settings["epochs"])  # of the preset's own cost
    _, taken = trained(table, dict(settings) | {"epochs": TRIAL})
    return max(1, round(seconds / taken * TRIAL))


def arm_row(
    name: str, table: Path, seeds: int, seconds: float, part: str
) -> tuple[str, float]:
    """Train a variant with all seeds; return the table row and mean seconds per run."""
    settings = dict(ARMS[name])
    if seconds:
        settings["epochs"] = epochs_for(table, settings, seconds)
    accuracies, balanced, taken = [], [], []
    for seed in range(seeds):
        run, spent = trained(table, settings | {"seed": seed})
        score = run.scores[part]
        accuracies.append(score["accuracy"])
        balanced.append(score["balanced_accuracy"])
        taken.append(spent)
    mean = sum(taken) / seeds
    cells = (
        f"{settings.get('epochs', 30)}",
        f"{mean:.0f} s",
        mean_deviation(accuracies),
        mean_deviation(balanced),
    )
    line = f"| {name} | {' | '.join(cells)} |"
    print(line, flush=True)
    return line, mean


def main() -> None:
    """Compare the variants, print and save the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", choices=("val", "test"), default="val")
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.arms.split(",")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "cells.csv"
        write_csv(table)
        # The preset comes first: its time is everybody's.
        first, seconds = arm_row("photographs", table, options.seeds, 0, options.part)
        rows = [first] + [
            arm_row(name, table, options.seeds, seconds, options.part)[0]
            for name in names
            if name != "photographs"
        ]
    head = (
        "| arm | epochs | processor time | accuracy | balanced |\n|---|---|---|---|---|"
    )
    said = f"ELPV cells, {options.part} part, {options.seeds} seeds, one thread."
    save("photographs", "The preset photographs", "\n".join([said, "", head, *rows]))


if __name__ == "__main__":
    main()
