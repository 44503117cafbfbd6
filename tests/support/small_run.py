"""A small run of the engine that can be stopped anywhere and sat through again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from striate.core.spec import Preprocess
from striate.data.batches import Batches
from striate.data.subset import Subset
from striate.engine.checkpoint import OptimizerState
from striate.engine.checkpoint_store import CheckpointStore
from striate.engine.checkpointer import Checkpointer, state_of
from striate.engine.csv_logger import CSVLogger
from striate.engine.ema import EMA
from striate.engine.loop import FitConfig, fit
from striate.engine.optim import make_optimizer
from striate.engine.rng import chance_kept
from striate.engine.schedule import SCHEDULES

PREPROCESS = Preprocess(channels=1, height=4, width=4, mean=(0.5,), std=(0.3,))
EPOCHS, STEPS = 3, 5  # of 18 images, four a batch


def subset(count, seed):
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 4, 4, 1), generator=draw).byte()
    labels = (pixels.float().mean((1, 2, 3)) > 127).long().tolist()
    return Subset.of(pixels, labels, [f"{i}.png" for i in range(count)])


def batches(count=18, pixels=0, **options):
    chosen = {"batch_size": 4, "seed": 7, **options}
    return Batches(subset=subset(count, pixels), preprocess=PREPROCESS, **chosen)


def network():
    torch.manual_seed(3)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.4), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(12, 2))


class Halt:
    """Stops a sitting once it has come so far: before a step, or within validation."""

    def __init__(self, before_step=None, in_validation_of=None):
        self.before_step = before_step
        self.in_validation_of = in_validation_of
        self.at = None

    def __call__(self):
        at = self.at
        if self.in_validation_of is not None:
            return at.epoch == self.in_validation_of and at.batch == STEPS
        return at.step == self.before_step and at.batch < STEPS


@dataclass
class Rig:
    """Sits through a run; each new one knows only what lies in the folder."""

    folder: Path
    optimizer: str = "adamw"
    layout: torch.memory_format = torch.contiguous_format
    every: float = 1e9
    ema: float = 0.0

    def sit(self, halt=None, observers=(), **plan) -> Checkpointer:
        """Go on from what lies in the folder, until the end or the halt."""
        model = network().to(memory_format=self.layout)
        optimizer = make_optimizer(model, self.optimizer, 0.05, 0.9, 0.01)
        train, val = batches(), batches(9, pixels=1, shuffle=False)
        sealed, _ = CheckpointStore(self.folder / "weights/last").newest()
        marks = state_of(sealed)[1] if sealed else None
        with CSVLogger(self.folder, train.indices, marks) as journal, chance_kept():
            parts = {"optimizer": OptimizerState(optimizer)}
            averaged, judged = (), model
            if self.ema:
                parts["average"] = average = EMA(model, self.ema)
                averaged, judged = (average,), average.model
            keeper = Checkpointer(
                self.folder / "weights",
                model,
                parts,
                marks=journal.marks,
                every=self.every,
                judged=judged,
            )
            if sealed:
                keeper.restore(sealed)
            keeper.save()
            chosen = {"epochs": EPOCHS, "lr": 0.05, "seed": 7, **plan}
            settings = FitConfig(schedule=SCHEDULES["one_cycle"], **chosen)
            watchers = (*averaged, journal, keeper, *observers)
            words = model, optimizer, train, val, settings, watchers
            if halt is None:
                fit(*words, at=keeper.at, judged=judged)
            else:
                halt.at = keeper.at
                fit(*words, halt, keeper.at, judged=judged)
            keeper.save()
        return keeper


def digest(folder: Path) -> dict[str, str]:
    """Hash everything that must not depend on how often a run was stopped."""
    sealed, passed_over = CheckpointStore(folder / "weights/last").newest()
    assert passed_over == []
    files = {f"last/{name}": content for name, content in sealed.files.items()}
    for name in ("results.csv", "events.jsonl", "weights/best.safetensors"):
        files[name] = (folder / name).read_bytes()
    return {name: hashlib.sha256(b).hexdigest() for name, b in files.items()}
