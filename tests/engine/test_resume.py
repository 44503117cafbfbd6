"""Faults A6 and A7: stopped anywhere, however often, it ends in the same bytes."""

import json
import random
import tempfile
from pathlib import Path

import pytest
import torch

from striate.engine.checkpoint_store import CheckpointStore
from striate.engine.checkpointer import checkpoint_state
from striate.engine.csv_logger import changed_files
from striate.engine.optim import OPTIMIZERS
from support.power_loss import crashes, in_memory, lay_out, watched
from support.small_run import EPOCHS, STEPS, Halt, Rig, batches, digest, network


@pytest.fixture
def memory():
    with in_memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def whole():
    """What each way of running comes to when nobody stops it."""
    known = {}

    def ask(**how):
        key = tuple(how.items())
        if key not in known:
            with in_memory() as folder:
                Rig(folder, **how).sit()
                known[key] = digest(folder)
        return known[key]

    return ask


def sat_through(folder, halts, **how):
    for halt in halts:
        Rig(folder, **how).sit(halt)
    Rig(folder, **how).sit()
    return digest(folder)


@pytest.mark.parametrize("step", range(EPOCHS * STEPS))
def test_stopped_before_any_step(memory, whole, step):
    assert sat_through(memory, [Halt(before_step=step)]) == whole()


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_stopped_within_validation(memory, whole, epoch):
    halts = [Halt(in_validation_of=epoch)]
    assert sat_through(memory, halts) == whole()


@pytest.mark.parametrize("steps", [(6, 8), (5, 6, 9), (5, 5, 5), (0, 1, 14)])
def test_stopped_two_and_three_times(memory, whole, steps):
    assert sat_through(memory, [Halt(before_step=s) for s in steps]) == whole()


def test_stopped_at_every_step_and_every_validation(memory, whole):
    halts = []
    for epoch in range(EPOCHS):
        halts += [Halt(before_step=epoch * STEPS + i) for i in range(STEPS)]
        halts.append(Halt(in_validation_of=epoch))
    assert sat_through(memory, halts) == whole()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_with_any_optimizer_and_memory_order(memory, whole, optimizer, layout):
    how = {"optimizer": optimizer, "layout": layout}
    halts = [Halt(before_step=7), Halt(in_validation_of=1)]
    assert sat_through(memory, halts, **how) == whole(**how)


def test_with_an_average(memory, whole):
    how = {"ema": 0.9}
    halts = [Halt(before_step=7), Halt(in_validation_of=1)]
    assert sat_through(memory, halts, **how) == whole(**how)
    assert whole(**how) != whole()


def test_an_average_left_out_of_the_state_is_missed(memory, whole, monkeypatch):
    name = "striate.engine.ema.EMA.load_state_dict"
    monkeypatch.setattr(name, lambda *_: None)
    assert sat_through(memory, [Halt(before_step=7)], ema=0.9) != whole(ema=0.9)


class Killed(BaseException):
    """Nobody catches it, as nobody catches a kill."""


class Killer:
    """Ends a sitting in the middle of things, after so many steps and epochs."""

    def __init__(self, after):
        self.left = after

    def on_step_end(self, done):
        self.left -= 1
        if self.left < 0:
            raise Killed

    on_epoch_end = on_step_end


@pytest.mark.parametrize("every", [0.0, 1e-3, 1e9])
def test_when_it_saves_changes_nothing(memory, whole, every):
    """Killed at random, with what was not saved lost, and sat through again."""
    draw = random.Random(every)
    for _ in range(12):
        sitting = Rig(memory, every=every)
        try:
            sitting.sit(observers=[Killer(draw.randrange(1, 12))])
        except Killed:
            continue
        break
    else:
        Rig(memory, every=every).sit()
    assert digest(memory) == whole()


def last_link(folder):
    events = (folder / "events.jsonl").read_text().splitlines()
    return json.loads(events[-1])["samples"]


def other_order(*sizes, **options):
    return batches(*sizes, **{**options, "seed": 8})


def test_the_sample_log_tells_another_order(memory, monkeypatch):
    """It bites: the chain of samples differs where the order of images does."""
    for name in ("one", "same", "other"):
        if name == "other":
            monkeypatch.setattr("support.small_run.batches", other_order)
        Rig(memory / name).sit(epochs=1)
    assert last_link(memory / "one") == last_link(memory / "same")
    assert last_link(memory / "one") != last_link(memory / "other")


@pytest.mark.parametrize("lost", ["draw_from", "optimizer", "buffers", "position"])
def test_that_bites(memory, whole, monkeypatch, lost):
    """Each piece of the state, left out, is missed."""
    if lost == "draw_from":
        monkeypatch.setattr("striate.engine.stepper.draw_from", lambda *_: None)
    if lost == "optimizer":
        name = "striate.engine.weights_io.OptimizerState.load_state_dict"
        monkeypatch.setattr(name, lambda *_: None)
    if lost == "buffers":
        forget_buffers(monkeypatch)
    if lost == "position":
        forget_losses(monkeypatch)
    assert sat_through(memory, [Halt(before_step=7)]) != whole()


def forget_buffers(monkeypatch):
    from striate.engine import checkpointer as keeper

    real = keeper.put_weights

    def forget(model, tensors, where):
        fresh = network().state_dict()
        real(
            model,
            {k: fresh[k] if "running" in k else v for k, v in tensors.items()},
            where,
        )

    monkeypatch.setattr(keeper, "put_weights", forget)


def forget_losses(monkeypatch):
    from striate.engine import checkpointer as keeper

    real = keeper.checkpoint_state

    def forget(sealed):
        at, marks = real(sealed)
        at.losses = 0.0
        return at, marks

    monkeypatch.setattr(keeper, "checkpoint_state", forget)


# --- A3 again, with everything that a run writes


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_a_power_failure_anywhere_in_a_run(memory, monkeypatch, count):
    """Checkpoint, best weights and both journals fit together, whatever was lost."""
    disk = memory / "disk"
    disk.mkdir()
    with watched(disk, monkeypatch) as log:
        Rig(disk, every=0.0).sit(epochs=1)
    draw = random.Random(count)
    after = sorted(draw.sample(range(len(log.calls)), count))
    for crash in crashes(log, draws=1, after=after):
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            lay_out(crash.tree, Path(folder))
            sealed, _ = CheckpointStore(Path(folder) / "weights/last").newest()
            if sealed:
                assert changed_files(Path(folder), checkpoint_state(sealed)[1]) == []
            if draw.random() < 0.1:
                Rig(Path(folder)).sit(epochs=1)
                assert digest(Path(folder)) == digest(disk), (crash.after, crash.how)
