"""Checkpointer: what is saved and when, failed writes, and restoring."""

import errno
import json
import os

import pytest
import torch
from torch import nn

from striate.core.errors import NonFiniteError, StorageError, WeightsError
from striate.engine.callbacks import EpochResult, StepResult
from striate.engine.checkpointer import Checkpointer, checkpoint_state
from striate.engine.optim import make_optimizer
from striate.engine.train_state import TrainState
from striate.engine.train_step import train_step
from striate.engine.weights_io import OptimizerState, read_weights
from support.power_loss import in_memory


def net(width=4):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4 * width, 2))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class SavedNetwork:
    """A network that has learned one step, its keeper, and a clock set by hand."""

    def __init__(self, folder, width=4, optimizer="adamw", extra=None, **options):
        self.folder = folder / "weights"
        self.model = net(width)
        self.optimizer = make_optimizer(self.model, optimizer, 0.01, 0.9, 0.1)
        x, y = torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 0, 1])
        train_step(self.model, x, y, self.optimizer)
        self.clock, self.messages = Clock(), []
        stateful = {"optimizer": OptimizerState(self.optimizer), **(extra or {})}
        options = {"interval": 60.0, "warn": self.messages.append, **options}
        self.checkpointer = Checkpointer(self.folder, self.model, stateful, **options)
        self.checkpointer._clock, self.checkpointer._saved_at = self.clock, 0.0

    def step(self):
        state = self.checkpointer.state
        result = StepResult(state.epoch, state.batch, state.step, 0.1, 0.1, 4)
        state.record_step(0.1, 0.1, 4)
        self.checkpointer.on_step_end(result)

    def epoch(self, accuracy):
        self.checkpointer.on_epoch_end(
            self.checkpointer.state.record_epoch(0.5, accuracy, accuracy)
        )

    def change_bias(self):
        with torch.no_grad():
            self.model[3].bias += 1

    def saved(self):
        return sorted(p.name for p in (self.folder / "last").glob("step-*"))

    def best(self):
        return read_weights(self.folder / "best.safetensors")["3.bias"]

    def newest(self):
        return self.checkpointer.store.newest()[0]


@pytest.fixture
def setup():
    with in_memory() as folder:
        yield SavedNetwork(folder)


def test_best_weights_are_saved(setup):
    setup.epoch(0.5)
    first = setup.best()
    setup.change_bias()
    setup.epoch(0.4)
    assert torch.equal(setup.best(), first)
    setup.epoch(0.6)
    assert torch.equal(setup.best(), setup.model[3].bias)


def test_checkpoints_are_saved_at_intervals(setup):
    setup.checkpointer.save()
    for now, count in ((59, 1), (61, 2), (120, 2), (122, 2)):
        setup.clock.now = now
        setup.step()
        assert len(setup.saved()) == count
    assert setup.saved() == ["step-00000002-epoch-0000", "step-00000004-epoch-0000"]
    setup.clock.now = 200
    setup.epoch(0.5)
    assert setup.saved()[-1] == "step-00000004-epoch-0001"
    setup.checkpointer.save()
    assert setup.messages == []


def test_the_same_state_is_not_saved_twice(setup):
    setup.checkpointer.save()
    before = setup.newest().path.stat().st_mtime_ns
    setup.checkpointer.save()
    assert setup.newest().path.stat().st_mtime_ns == before


def test_best_weights_of_a_separate_eval_model():
    """The best weights may be those of a moving average."""
    with in_memory() as folder:
        ema = net()
        setup = SavedNetwork(folder, eval_model=ema, extra={"ema": ema})
        setup.epoch(0.5)
        setup.checkpointer.save()
        assert torch.equal(setup.best(), ema[3].bias)
        assert not torch.equal(setup.best(), setup.model[3].bias)
        assert "ema.safetensors" in setup.newest().files
        other = net()
        with torch.no_grad():
            other[3].bias += 5
        again = SavedNetwork(folder, eval_model=other, extra={"ema": other})
        again.checkpointer.restore(again.newest())
        assert torch.equal(other[3].bias, ema[3].bias)


# --- a disk that refuses


def full(handle, payload):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_failed_checkpoint_gives_a_warning_and_is_retried(setup, monkeypatch):
    setup.checkpointer.save()
    monkeypatch.setattr(os, "write", full)
    setup.clock.now = 61
    setup.step()
    setup.clock.now = 100
    setup.step()
    assert len(setup.messages) == 1
    assert setup.messages[0].startswith(
        "checkpoint not saved: could not save step-00000001-epo"
    )
    assert "the disk is full (" in setup.messages[0]
    assert setup.messages[0].endswith(" free); the run continues")
    monkeypatch.undo()
    setup.clock.now = 122
    setup.step()
    assert setup.saved() == ["step-00000000-epoch-0000", "step-00000003-epoch-0000"]


def test_error_message_contains_the_size(setup, monkeypatch):
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError) as caught:
        setup.checkpointer.save()
    state = setup.optimizer.state_dict()["state"].values()
    size = sum(t.nbytes for t in setup.model.state_dict().values())
    size += sum(t.nbytes for entries in state for t in entries.values())
    assert f"({size:,} bytes needed, " in caught.value.what


# --- numbers that are none


def test_nonfinite_weights_are_never_saved(setup):
    """Without the check a checkpoint of NaN takes the place of the last good one."""
    setup.checkpointer.save()
    setup.step()
    with torch.no_grad():
        setup.model[3].weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"NaN or infinite, first in 3\.weight"):
        setup.checkpointer.save()
    with pytest.raises(NonFiniteError):
        setup.epoch(0.9)
    assert setup.saved() == ["step-00000000-epoch-0000"]
    assert not (setup.folder / "best.safetensors").exists()


# --- going back


def test_restore_restores_everything(setup):
    setup.step()
    setup.epoch(0.5)
    setup.checkpointer.save()
    saved = {k: v.clone() for k, v in setup.model.state_dict().items()}
    moments = OptimizerState(setup.optimizer).state_dict()
    best = setup.best()
    other = SavedNetwork(setup.folder.parent, optimizer="adamw")
    other.change_bias()
    other.checkpointer.restore(setup.newest())
    assert all(torch.equal(v, saved[k]) for k, v in other.model.state_dict().items())
    back = OptimizerState(other.optimizer).state_dict()
    assert all(torch.equal(v, moments[k]) for k, v in back.items())
    assert len(back) == 18
    assert other.checkpointer.state == setup.checkpointer.state
    assert torch.equal(other.best(), best)


def test_restore_brings_back_earlier_best_weights(setup):
    """Going on from an earlier checkpoint, its best weights come with it."""
    setup.epoch(0.5)
    setup.checkpointer.save()
    checkpoint, best = setup.newest(), setup.best()
    setup.change_bias()
    setup.epoch(0.9)
    assert not torch.equal(setup.best(), best)
    SavedNetwork(setup.folder.parent).checkpointer.restore(checkpoint)
    assert torch.equal(setup.best(), best)


def test_best_weights_changed_by_another_program(setup):
    setup.epoch(0.5)
    for change in (lambda path: path.write_bytes(b"mine"), lambda path: path.unlink()):
        change(setup.folder / "best.safetensors")
        with pytest.raises(WeightsError, match="has changed since this run wrote"):
            setup.checkpointer.save()
    assert setup.saved() == []


def test_checkpoint_of_another_network_is_refused(setup):
    setup.checkpointer.save()
    other = SavedNetwork(setup.folder.parent, width=5)
    with pytest.raises(
        WeightsError, match="belong to another network; nothing was loaded"
    ):
        other.checkpointer.restore(setup.newest())


def test_checkpoint_without_a_file_is_refused(setup):
    setup.checkpointer.save()
    other = SavedNetwork(setup.folder.parent, extra={"ema": net()})
    with pytest.raises(WeightsError, match="not a valid safetensors file"):
        other.checkpointer.restore(setup.newest())


@pytest.mark.parametrize(
    "state",
    [
        None,
        b"no JSON",
        b"[]",
        b"{}",
        b'{"train_state": {"history": []}}',
        b'{"train_state": {"history": [], "strange": 1}, "offsets": {}}',
        b'{"train_state": {"history": [{}]}, "offsets": {}}',
    ],
)
def test_state_of_another_format_is_refused(setup, state):
    setup.checkpointer.save()
    checkpoint = setup.newest()
    checkpoint.files.pop("state.json")
    if state is not None:
        checkpoint.files["state.json"] = state
    with pytest.raises(WeightsError, match="has no training state"):
        checkpoint_state(checkpoint)


def test_train_state_survives_json():
    history = [
        EpochResult(
            epoch=0,
            train_loss=0.1 + 0.2,
            val_loss=1 / 3,
            val_accuracy=2 / 3,
            val_balanced_accuracy=3 / 5,
            lr=1e-17,
            best=True,
        )
    ]
    state = TrainState(epoch=1, batch=2, step=9, loss_sum=0.7 * 3, history=history)
    assert TrainState.from_dict(json.loads(json.dumps(state.as_dict()))) == state
