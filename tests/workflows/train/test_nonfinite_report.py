"""NaN in a run (fault G1): the report, and `--on-nonfinite` stop, skip and lower-lr."""

import json
import math
from pathlib import Path

import pytest

from striate.core.files import read_csv, read_json
from striate.data.batches import Batches
from striate.data.split.hash_split import SplitConfig
from striate.engine.checkpoint_store import CheckpointStore
from striate.engine.weights_io import read_weights
from support.stopped_runs import ask_before

pytestmark = pytest.mark.usefixtures("no_report")

SETTINGS = ("--epochs", "3", "--batch-size", "8", "--quiet")


@pytest.fixture(autouse=True)
def _split_by_hash(monkeypatch):
    """The steps and images below are those of a split by hash, not of exact counts."""
    monkeypatch.setattr(SplitConfig, "smallest_class", lambda self, splits: 0)


def poison(patch, steps, row=2, split="train"):
    """Put a NaN into one image of some steps, every time that they are taken."""
    real = Batches.__call__

    def call(self, epoch=0, start=0):
        for i, (x, y) in enumerate(real(self, epoch, start), start):
            number = epoch * len(self) + i
            if self.shuffle == (split == "train") and number in steps:
                x[row, 0, 0, 0] = math.nan
            yield x, y

    patch.setattr(Batches, "__call__", call)


def path_of(run, step, row):
    """Return the image that was poisoned, by way of the run's own files."""
    batches = batches_of(run)
    number = batches.indices(step // 4)[step % 4][row]
    return batches.subset.paths[int(number)]


def batches_of(run):
    from striate.run.run import Run

    found = Run(run)
    subset = found.data.subset("train")
    return Batches(subset=subset, preprocess=found.preprocess, batch_size=8)


def test_stop_reports_layer_images_and_next_commands(
    striate, shared_folder, monkeypatch
):
    poison(monkeypatch, [5])
    said = striate("train", shared_folder, *SETTINGS, "--out", "run")
    assert said.code == 1
    bad = path_of(Path("run"), 5, 2)
    assert said.err == (
        "striate: the training loss became nan, first in the images\n"
        f"  images: {bad}\n"
        "  where: epoch 2, step 2; details in run/nonfinite.json\n"
        "  do:    the last valid state is saved; resume with one of these commands\n"
        "         striate train --resume run --on-nonfinite skip\n"
        "         striate train --resume run --on-nonfinite lower-lr\n"
        "         striate train --resume run --lr 0.0015\n"
    )
    assert read_json(Path("run/nonfinite.json")) == [
        {
            "epoch": 2,
            "step": 6,
            "split": "train",
            "what": "the training loss became nan, first in the images",
            "layer": "the images",
            "action": "stop",
            "images": [bad],
        }
    ]
    sealed, _ = CheckpointStore(Path("run/weights/last")).newest()
    assert sealed.path.name == "step-00000005-epoch-0001"
    record = read_json(Path("run/manifest.json"))
    assert record["status"] == "stopped"
    assert record["reason"].startswith("the training loss became nan")
    best = read_weights(Path("run/weights/best.safetensors"))
    assert all(tensor.isfinite().all() for tensor in best.values())


def events_of(run):
    lines = Path(run, "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_skip_after_resume_equals_skip_from_the_start(
    striate, shared_folder, monkeypatch
):
    """Stopped, then resumed with skip: the same bytes as with skip from the start."""
    poison(monkeypatch, [5])
    words = shared_folder, *SETTINGS
    assert striate("train", *words, "--out", "run").code == 1
    skip = ("--on-nonfinite", "skip")
    said = striate("train", "--resume", "run", *skip, "--quiet")
    assert said.code == 0
    assert "exact: yes" in said.out
    assert said.err.startswith("skipped epoch 2, step 2: the training loss became nan")
    assert striate("train", *words, *skip, "--out", "whole").code == 0
    for name in ("events.jsonl", "results.csv", "weights/best.safetensors"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()
    events = events_of("run")
    assert [e["step"] for e in events if e["loss"] is None] == [5]
    assert [e["step"] for e in events] == list(range(12))
    assert [c["action"] for c in read_json(Path("run/nonfinite.json"))] == ["skip"]


def test_a_run_that_skips_can_be_resumed(striate, shared_folder, monkeypatch):
    poison(monkeypatch, [2, 4, 7])
    words = shared_folder, *SETTINGS, "--on-nonfinite", "skip"
    assert striate("train", *words, "--out", "whole").code == 0
    for step in (3, 5):
        with pytest.MonkeyPatch.context() as patch:
            ask_before(step, patch)
            out = f"run{step}"
            assert striate("train", *words, "--out", out).code == 130
        assert striate("train", "--resume", out, "--quiet").code == 0
        for name in ("events.jsonl", "results.csv", "nonfinite.json"):
            assert Path(out, name).read_bytes() == Path("whole", name).read_bytes()
    cases = read_json(Path("whole/nonfinite.json"))
    assert [case["step"] for case in cases] == [3, 5, 8]


def test_skip_ends_after_ten_batches_in_a_row(striate, shared_folder, monkeypatch):
    poison(monkeypatch, range(100))
    words = shared_folder, *SETTINGS, "--epochs", "9", "--on-nonfinite", "skip"
    said = striate("train", *words, "--out", "run")
    assert said.code == 1
    assert "; 10 batches in a row were skipped" in said.err
    assert said.err.count("\nskipped ") + said.err.startswith("skipped ") == 10


def test_lower_lr_stops_at_the_smallest_rate(striate, shared_folder):
    """A rate that is far too high is halved six times."""
    words = shared_folder, *SETTINGS, "--optimizer", "sgd", "--schedule", "constant"
    hot = ("--lr", "1e6")
    assert striate("train", *words, *hot, "--out", "run").code == 1
    said = striate(
        "train", *words, *hot, "--on-nonfinite", "lower-lr", "--out", "other"
    )
    assert said.code == 1
    assert "with 0.015625 times the learning rate" in said.err
    assert (
        said.err.count(
            "restarting from the last checkpoint with half the learning rate"
        )
        == 6
    )
    rates = {row["lr"] for row in read_csv(Path("other/results.csv"))}
    assert rates <= {"15625"}


def test_lower_lr_finishes_the_run(striate, shared_folder, monkeypatch):
    """At half the rate the loss stays finite, and the run is marked inexact."""
    words = shared_folder, *SETTINGS, "--on-nonfinite", "lower-lr", "--save-every", "0"
    blows = poison_at_full_rate(monkeypatch)
    said = striate("train", *words, "--schedule", "constant", "--out", "run")
    assert said.code == 0
    assert blows == [5]
    assert "half the learning rate" in said.err
    events = events_of("run")
    assert [e["lr"] for e in events] == [0.003] * 5 + [0.0015] * 7
    record = read_json(Path("run/manifest.json"))
    assert record["exact"] == "no (the learning rate was halved after step 5)"
    assert len(read_csv(Path("run/timing.csv"))) == 3


def poison_at_full_rate(patch):
    """Blow up at the sixth step, but only if the rate is the planned one."""
    from striate.core.errors import NonFiniteError
    from striate.engine import recoverable_step as engine

    real, met = engine.train_step, []

    def step(model, x, y, optimizer, *words):
        rate = optimizer.param_groups[0]["lr"]
        met.append(rate)
        if rate == 0.003 and len(met) == 6:
            blows.append(len(met) - 1)
            raise NonFiniteError("the training loss became nan")
        return real(model, x, y, optimizer, *words)

    blows = []
    patch.setattr(engine, "train_step", step)
    return blows


def test_nan_in_validation_names_its_images(striate, shared_folder, monkeypatch):
    poison(monkeypatch, [0], row=1, split="val")
    said = striate("train", shared_folder, *SETTINGS, "--out", "run")
    assert said.code == 1
    assert "the validation loss became nan, first in the images" in said.err
    rows = [
        r["image_path"] for r in read_csv(Path("run/split.csv")) if r["split"] == "val"
    ]
    assert f"  images: {rows[1]}\n" in said.err
    assert not Path("run/weights/best.safetensors").exists()
    sealed, _ = CheckpointStore(Path("run/weights/last")).newest()
    assert sealed.path.name == "step-00000004-epoch-0000"


def test_the_whole_batch_is_listed_if_the_image_is_unknown(
    striate, shared_folder, monkeypatch
):
    """Only the loss is not finite: five images are printed, all are recorded."""
    from striate.engine import gradient_accumulation as engine

    real = engine.total_loss
    monkeypatch.setattr(engine, "total_loss", lambda *words: real(*words) / 0)
    said = striate("train", shared_folder, *SETTINGS, "--out", "run")
    assert said.code == 1
    assert "first in the loss\n  images: " in said.err
    assert " and 3 more\n" in said.err
    assert len(read_json(Path("run/nonfinite.json"))[0]["images"]) == 8


def test_infinite_weights_are_not_saved(striate, shared_folder, monkeypatch):
    """The last update made the weights infinite: no checkpoint has them."""
    import torch

    from striate.engine import recoverable_step as engine

    real, met = engine.train_step, []

    def step(model, x, y, optimizer, *words):
        loss = real(model, x, y, optimizer, *words)
        met.append(loss)
        if len(met) == 9:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0][0] = math.inf
        return loss

    monkeypatch.setattr(engine, "train_step", step)
    words = shared_folder, *SETTINGS, "--save-every", "0"
    said = striate("train", *words, "--out", "run")
    assert said.code == 1
    assert "the weights became NaN or infinite, first in " in said.err
    sealed, passed_over = CheckpointStore(Path("run/weights/last")).newest()
    assert sealed.path.name == "step-00000008-epoch-0002"
    assert passed_over == []
