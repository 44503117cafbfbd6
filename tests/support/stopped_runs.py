"""Training runs in this process, stopped before a given step or run to the end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from striate.core.errors import InterruptedRunError
from striate.data.batches import Batches
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.train import run_job
from striate.workflows.train.train import train_recipe
from support.images import write_folder


def ask_before(step, patch):
    """Have Ctrl-C pressed once, before a step of training."""
    real, epochs = Batches.__call__, []

    def call(self, epoch=0, start=0):
        for batch in real(self, epoch, start):
            if self.shuffle:
                if len(epochs) == step:
                    signal.raise_signal(signal.SIGINT)
                epochs.append(epoch)
            yield batch

    patch.setattr(Batches, "__call__", call)


def stopped(data, out="run", step=6, **settings) -> Path:
    """Train until a step, and be stopped there."""
    with pytest.MonkeyPatch.context() as patch:
        ask_before(step, patch)
        with pytest.raises(InterruptedRunError):
            whole(data, out, **settings)
    return Path(out)


def whole(data, out="whole", **settings) -> Path:
    """Train to the end."""
    chosen = {"epochs": 3, "batch_size": 8, **settings}
    train_recipe(Recipe(data=str(data), **chosen), out=Path(out), quiet=True)
    return Path(out)


def knows_stripes(root, count, size=(8, 8), channels=1) -> Run:
    """Train a network on so many images of each of three classes, without a page."""
    names = "across", "down", "aslant"
    data = write_folder(root / "data", names, count, size, channels)
    recipe = Recipe(data=str(data), model="fast_small", epochs=4, batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_job, "write_report", lambda run: None)
        return train_recipe(recipe, out=root / "run", quiet=True)
