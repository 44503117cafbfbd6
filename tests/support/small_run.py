"""A small training run that can be stopped anywhere and resumed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from striate.core.preprocess_config import Preprocess
from striate.data.batches import Batches
from striate.data.subset import Subset
from striate.engine.checkpoint_store import CheckpointStore
from striate.engine.checkpointer import Checkpointer, checkpoint_state
from striate.engine.csv_logger import CSVLogger
from striate.engine.ema import EMA
from striate.engine.optim import make_optimizer
from striate.engine.rng import preserve_rng_state
from striate.engine.schedule import SCHEDULES
from striate.engine.training_loop import FitConfig, FitSession, fit
from striate.engine.weights_io import OptimizerState

PREPROCESS = Preprocess(channels=1, height=4, width=4, mean=(0.5,), std=(0.3,))
EPOCHS, STEPS = 3, 5  # of 18 images, four a batch


def subset(count, seed):
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 4, 4, 1), generator=draw).byte()
    labels = (pixels.float().mean((1, 2, 3)) > 127).long().tolist()
    return Subset.of(pixels, labels, [f"{i}.png" for i in range(count)])


def batches(count=18, pixels=0, **options):
    settings = {"batch_size": 4, "seed": 7, **options}
    return Batches(subset=subset(count, pixels), preprocess=PREPROCESS, **settings)


def network():
    torch.manual_seed(3)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.4), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(12, 2))


class StopAt:
    """Stops a run before a step, or within a validation."""

    def __init__(self, before_step=None, in_validation_of=None):
        self.before_step = before_step
        self.in_validation_of = in_validation_of
        self.state = None

    def __call__(self):
        state = self.state
        if self.in_validation_of is not None:
            return state.epoch == self.in_validation_of and state.batch == STEPS
        return state.step == self.before_step and state.batch < STEPS


@dataclass
class SmallRun:
    """A run in a folder; each new instance resumes from that folder alone."""

    folder: Path
    optimizer: str = "adamw"
    layout: torch.memory_format = torch.contiguous_format
    save_interval: float = 1e9
    ema: float = 0.0

    def train(self, stop=None, callbacks=(), **fit_options) -> Checkpointer:
        """Resume from the folder's checkpoint, and train to the end or the stop."""
        model = network().to(memory_format=self.layout)
        optimizer = make_optimizer(model, self.optimizer, 0.05, 0.9, 0.01)
        train, val = batches(), batches(9, pixels=1, shuffle=False)
        checkpoint, _ = CheckpointStore(self.folder / "weights/last").newest()
        offsets = checkpoint_state(checkpoint)[1] if checkpoint else None
        with (
            CSVLogger(self.folder, train.indices, offsets) as csv_logger,
            preserve_rng_state(),
        ):
            stateful = {"optimizer": OptimizerState(optimizer)}
            ema_callbacks, eval_model = (), model
            if self.ema:
                stateful["ema"] = ema = EMA(model, self.ema)
                ema_callbacks, eval_model = (ema,), ema.model
            checkpointer = Checkpointer(
                self.folder / "weights",
                model,
                stateful,
                offsets=csv_logger.offsets,
                interval=self.save_interval,
                eval_model=eval_model,
            )
            if checkpoint:
                checkpointer.restore(checkpoint)
            checkpointer.save()
            settings = {"epochs": EPOCHS, "lr": 0.05, "seed": 7, **fit_options}
            if stop:
                stop.state = checkpointer.state
            fit(
                model,
                optimizer,
                train,
                val,
                FitConfig(schedule=SCHEDULES["one_cycle"], **settings),
                callbacks=(*ema_callbacks, csv_logger, checkpointer, *callbacks),
                state=checkpointer.state,
                session=FitSession(
                    should_stop=stop or (lambda: False), eval_model=eval_model
                ),
            )
            checkpointer.save()
        return checkpointer


def digest(folder: Path) -> dict[str, str]:
    """Hash all files that must not depend on how often a run was stopped."""
    checkpoint, skipped = CheckpointStore(folder / "weights/last").newest()
    assert skipped == []
    files = {f"last/{name}": content for name, content in checkpoint.files.items()}
    for name in ("results.csv", "events.jsonl", "weights/best.safetensors"):
        files[name] = (folder / name).read_bytes()
    return {name: hashlib.sha256(b).hexdigest() for name, b in files.items()}
