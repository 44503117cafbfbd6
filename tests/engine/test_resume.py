"""Exact resume: a run stopped anywhere ends with the same bytes (faults A6 and A7)."""

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
from support.small_run import EPOCHS, STEPS, SmallRun, StopAt, batches, digest, network


@pytest.fixture
def disk_folder():
    with in_memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def uninterrupted():
    """What each way of running comes to when nobody stops it."""
    digests = {}

    def get(**options):
        key = tuple(options.items())
        if key not in digests:
            with in_memory() as folder:
                SmallRun(folder, **options).train()
                digests[key] = digest(folder)
        return digests[key]

    return get


def digest_after_stops(folder, stops, **options):
    for stop in stops:
        SmallRun(folder, **options).train(stop)
    SmallRun(folder, **options).train()
    return digest(folder)


@pytest.mark.parametrize("step", range(EPOCHS * STEPS))
def test_stopped_before_any_step(disk_folder, uninterrupted, step):
    assert (
        digest_after_stops(disk_folder, [StopAt(before_step=step)]) == uninterrupted()
    )


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_stopped_within_validation(disk_folder, uninterrupted, epoch):
    stops = [StopAt(in_validation_of=epoch)]
    assert digest_after_stops(disk_folder, stops) == uninterrupted()


@pytest.mark.parametrize("steps", [(6, 8), (5, 6, 9), (5, 5, 5), (0, 1, 14)])
def test_stopped_two_and_three_times(disk_folder, uninterrupted, steps):
    assert (
        digest_after_stops(disk_folder, [StopAt(before_step=s) for s in steps])
        == uninterrupted()
    )


def test_stopped_at_every_step_and_every_validation(disk_folder, uninterrupted):
    stops = []
    for epoch in range(EPOCHS):
        stops += [StopAt(before_step=epoch * STEPS + i) for i in range(STEPS)]
        stops.append(StopAt(in_validation_of=epoch))
    assert digest_after_stops(disk_folder, stops) == uninterrupted()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_stopped_with_any_optimizer_and_layout(
    disk_folder, uninterrupted, optimizer, layout
):
    options = {"optimizer": optimizer, "layout": layout}
    stops = [StopAt(before_step=7), StopAt(in_validation_of=1)]
    assert digest_after_stops(disk_folder, stops, **options) == uninterrupted(**options)


def test_stopped_with_ema(disk_folder, uninterrupted):
    options = {"ema": 0.9}
    stops = [StopAt(before_step=7), StopAt(in_validation_of=1)]
    assert digest_after_stops(disk_folder, stops, **options) == uninterrupted(**options)
    assert uninterrupted(**options) != uninterrupted()


def test_missing_ema_state_is_detected(disk_folder, uninterrupted, monkeypatch):
    name = "striate.engine.ema.EMA.load_state_dict"
    monkeypatch.setattr(name, lambda *_: None)
    assert digest_after_stops(
        disk_folder, [StopAt(before_step=7)], ema=0.9
    ) != uninterrupted(ema=0.9)


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


@pytest.mark.parametrize("save_interval", [0.0, 1e-3, 1e9])
def test_time_of_saving_changes_no_result(disk_folder, uninterrupted, save_interval):
    """Killed at random, with what was not saved lost, and sat through again."""
    draw = random.Random(save_interval)
    for _ in range(12):
        run = SmallRun(disk_folder, save_interval=save_interval)
        try:
            run.train(callbacks=[Killer(draw.randrange(1, 12))])
        except Killed:
            continue
        break
    else:
        SmallRun(disk_folder, save_interval=save_interval).train()
    assert digest(disk_folder) == uninterrupted()


def last_sample_hash(folder):
    events = (folder / "events.jsonl").read_text().splitlines()
    return json.loads(events[-1])["sample_hash"]


def other_order(*sizes, **options):
    return batches(*sizes, **{**options, "seed": 8})


def test_sample_hash_depends_on_the_order(disk_folder, monkeypatch):
    """It bites: the chain of samples differs where the order of images does."""
    for name in ("one", "same", "other"):
        if name == "other":
            monkeypatch.setattr("support.small_run.batches", other_order)
        SmallRun(disk_folder / name).train(epochs=1)
    assert last_sample_hash(disk_folder / "one") == last_sample_hash(
        disk_folder / "same"
    )
    assert last_sample_hash(disk_folder / "one") != last_sample_hash(
        disk_folder / "other"
    )


@pytest.mark.parametrize("missing", ["seed_rng", "optimizer", "buffers", "train_state"])
def test_that_bites(disk_folder, uninterrupted, monkeypatch, missing):
    """Each piece of the state, left out, is missed."""
    if missing == "seed_rng":
        monkeypatch.setattr("striate.engine.recoverable_step.seed_rng", lambda *_: None)
    if missing == "optimizer":
        name = "striate.engine.weights_io.OptimizerState.load_state_dict"
        monkeypatch.setattr(name, lambda *_: None)
    if missing == "buffers":
        forget_buffers(monkeypatch)
    if missing == "train_state":
        forget_losses(monkeypatch)
    assert digest_after_stops(disk_folder, [StopAt(before_step=7)]) != uninterrupted()


def forget_buffers(monkeypatch):
    from striate.engine import checkpointer

    real = checkpointer.assign_weights

    def load_without(model, tensors, where):
        fresh = network().state_dict()
        real(
            model,
            {k: fresh[k] if "running" in k else v for k, v in tensors.items()},
            where,
        )

    monkeypatch.setattr(checkpointer, "assign_weights", load_without)


def forget_losses(monkeypatch):
    from striate.engine import checkpointer

    real = checkpointer.checkpoint_state

    def load_without(checkpoint):
        state, offsets = real(checkpoint)
        state.loss_sum = 0.0
        return state, offsets

    monkeypatch.setattr(checkpointer, "checkpoint_state", load_without)


# --- A3 again, with everything that a run writes


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_power_failure_anywhere_in_a_run(disk_folder, monkeypatch, count):
    """Checkpoint, best weights and both journals fit together, whatever was lost."""
    disk = disk_folder / "disk"
    disk.mkdir()
    with watched(disk, monkeypatch) as log:
        SmallRun(disk, save_interval=0.0).train(epochs=1)
    draw = random.Random(count)
    after = sorted(draw.sample(range(len(log.calls)), count))
    for crash in crashes(log, draws=1, after=after):
        with tempfile.TemporaryDirectory(dir=disk_folder) as folder:
            lay_out(crash.tree, Path(folder))
            checkpoint, _ = CheckpointStore(Path(folder) / "weights/last").newest()
            if checkpoint:
                assert (
                    changed_files(Path(folder), checkpoint_state(checkpoint)[1]) == []
                )
            if draw.random() < 0.1:
                SmallRun(Path(folder)).train(epochs=1)
                assert digest(Path(folder)) == digest(disk), (crash.after, crash.how)
