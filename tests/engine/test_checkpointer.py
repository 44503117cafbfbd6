"""What is kept and when, what is refused, and what is given back."""

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
from striate.engine.step import train_step
from striate.engine.train_state import TrainState
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


class Bench:
    """A network that has learned one step, its keeper, and a clock set by hand."""

    def __init__(self, folder, width=4, optimizer="adamw", extra=None, **options):
        self.folder = folder / "weights"
        self.model = net(width)
        self.optimizer = make_optimizer(self.model, optimizer, 0.01, 0.9, 0.1)
        x, y = torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 0, 1])
        train_step(self.model, x, y, self.optimizer)
        self.clock, self.told = Clock(), []
        parts = {"optimizer": OptimizerState(self.optimizer), **(extra or {})}
        options = {"every": 60.0, "tell": self.told.append, **options}
        self.keeper = Checkpointer(
            self.folder, self.model, parts, clock=self.clock, **options
        )

    def step(self):
        at = self.keeper.at
        done = StepResult(at.epoch, at.batch, at.step, 0.1, 0.1, 4)
        at.step_done(0.1, 0.1, 4)
        self.keeper.on_step_end(done)

    def epoch(self, accuracy):
        self.keeper.on_epoch_end(self.keeper.at.epoch_done(0.5, accuracy, accuracy))

    def bump(self):
        with torch.no_grad():
            self.model[3].bias += 1

    def kept(self):
        return sorted(p.name for p in (self.folder / "last").glob("step-*"))

    def best(self):
        return read_weights(self.folder / "best.safetensors")["3.bias"]

    def newest(self):
        return self.keeper.vault.newest()[0]


@pytest.fixture
def bench():
    with in_memory() as folder:
        yield Bench(folder)


def test_the_best_is_kept(bench):
    bench.epoch(0.5)
    first = bench.best()
    bench.bump()
    bench.epoch(0.4)
    assert torch.equal(bench.best(), first)
    bench.epoch(0.6)
    assert torch.equal(bench.best(), bench.model[3].bias)


def test_it_saves_when_it_is_time(bench):
    bench.keeper.save()
    for now, count in ((59, 1), (61, 2), (120, 2), (122, 2)):
        bench.clock.now = now
        bench.step()
        assert len(bench.kept()) == count
    assert bench.kept() == ["step-00000002-epoch-0000", "step-00000004-epoch-0000"]
    bench.clock.now = 200
    bench.epoch(0.5)
    assert bench.kept()[-1] == "step-00000004-epoch-0001"
    bench.keeper.save()
    assert bench.told == []


def test_what_is_kept_is_not_kept_again(bench):
    bench.keeper.save()
    before = bench.newest().path.stat().st_mtime_ns
    bench.keeper.save()
    assert bench.newest().path.stat().st_mtime_ns == before


def test_a_network_of_its_own_is_judged():
    """The best weights may be those of a moving average."""
    with in_memory() as folder:
        average = net()
        bench = Bench(folder, judged=average, extra={"average": average})
        bench.epoch(0.5)
        bench.keeper.save()
        assert torch.equal(bench.best(), average[3].bias)
        assert not torch.equal(bench.best(), bench.model[3].bias)
        assert "average.safetensors" in bench.newest().files
        other = net()
        with torch.no_grad():
            other[3].bias += 5
        again = Bench(folder, judged=other, extra={"average": other})
        again.keeper.restore(again.newest())
        assert torch.equal(other[3].bias, average[3].bias)


# --- a disk that refuses


def full(handle, payload):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_refused_checkpoint_is_told_and_tried_again(bench, monkeypatch):
    bench.keeper.save()
    monkeypatch.setattr(os, "write", full)
    bench.clock.now = 61
    bench.step()
    bench.clock.now = 100
    bench.step()
    assert len(bench.told) == 1
    assert bench.told[0].startswith("no checkpoint: could not save step-00000001-epo")
    assert "the disk is full (" in bench.told[0]
    assert bench.told[0].endswith(" free); the run goes on")
    monkeypatch.undo()
    bench.clock.now = 122
    bench.step()
    assert bench.kept() == ["step-00000000-epoch-0000", "step-00000003-epoch-0000"]


def test_the_message_knows_the_size(bench, monkeypatch):
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError) as caught:
        bench.keeper.save()
    state = bench.optimizer.state_dict()["state"].values()
    size = sum(t.nbytes for t in bench.model.state_dict().values())
    size += sum(t.nbytes for entries in state for t in entries.values())
    assert f"({size:,} bytes needed, " in caught.value.what


# --- numbers that are none


def test_weights_that_are_not_finite_are_never_kept(bench):
    """Without the check a checkpoint of NaN takes the place of the last good one."""
    bench.keeper.save()
    bench.step()
    with torch.no_grad():
        bench.model[3].weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"NaN or infinite, first 3\.weight"):
        bench.keeper.save()
    with pytest.raises(NonFiniteError):
        bench.epoch(0.9)
    assert bench.kept() == ["step-00000000-epoch-0000"]
    assert not (bench.folder / "best.safetensors").exists()


# --- going back


def test_everything_comes_back(bench):
    bench.step()
    bench.epoch(0.5)
    bench.keeper.save()
    kept = {k: v.clone() for k, v in bench.model.state_dict().items()}
    moments = OptimizerState(bench.optimizer).state_dict()
    best = bench.best()
    other = Bench(bench.folder.parent, optimizer="adamw")
    other.bump()
    other.keeper.restore(bench.newest())
    assert all(torch.equal(v, kept[k]) for k, v in other.model.state_dict().items())
    back = OptimizerState(other.optimizer).state_dict()
    assert all(torch.equal(v, moments[k]) for k, v in back.items())
    assert len(back) == 18
    assert other.keeper.at == bench.keeper.at
    assert torch.equal(other.best(), best)


def test_the_best_of_a_lost_future_is_taken_back(bench):
    """Going on from an earlier checkpoint, its best weights come with it."""
    bench.epoch(0.5)
    bench.keeper.save()
    sealed, best = bench.newest(), bench.best()
    bench.bump()
    bench.epoch(0.9)
    assert not torch.equal(bench.best(), best)
    Bench(bench.folder.parent).keeper.restore(sealed)
    assert torch.equal(bench.best(), best)


def test_best_weights_that_someone_else_changed(bench):
    bench.epoch(0.5)
    for change in (lambda path: path.write_bytes(b"mine"), lambda path: path.unlink()):
        change(bench.folder / "best.safetensors")
        with pytest.raises(WeightsError, match="no longer what this run wrote"):
            bench.keeper.save()
    assert bench.kept() == []


def test_a_checkpoint_of_another_network(bench):
    bench.keeper.save()
    other = Bench(bench.folder.parent, width=5)
    with pytest.raises(WeightsError, match="of another network; nothing was loaded"):
        other.keeper.restore(bench.newest())


def test_a_checkpoint_that_lacks_a_part(bench):
    bench.keeper.save()
    other = Bench(bench.folder.parent, extra={"average": net()})
    with pytest.raises(WeightsError, match="not a sound safetensors file"):
        other.keeper.restore(bench.newest())


@pytest.mark.parametrize(
    "state",
    [
        None,
        b"no JSON",
        b"[]",
        b"{}",
        b'{"position": {"history": []}}',
        b'{"position": {"history": [], "strange": 1}, "journal": {}}',
        b'{"position": {"history": [{}]}, "journal": {}}',
    ],
)
def test_a_state_of_another_version(bench, state):
    bench.keeper.save()
    sealed = bench.newest()
    sealed.files.pop("state.json")
    if state is not None:
        sealed.files["state.json"] = state
    with pytest.raises(WeightsError, match="does not say how far the run is"):
        checkpoint_state(sealed)


def test_a_position_survives_json():
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
    at = TrainState(epoch=1, batch=2, step=9, losses=0.7 * 3, history=history)
    assert TrainState.from_dict(json.loads(json.dumps(at.as_dict()))) == at
