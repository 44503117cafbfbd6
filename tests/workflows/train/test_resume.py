"""`striate train --resume RUN`: exactness, changes and locks (faults A7, A8, A9)."""

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import striate as st
from striate.core.errors import (
    InterruptedRunError,
    RunError,
    SettingError,
    StorageError,
)
from striate.core.files import read_json
from striate.data.split.hash_split import SplitConfig
from striate.engine.checkpoint_store import CheckpointStore
from striate.run import lock, manifest
from striate.run.lock import lock_folder
from striate.workflows.train import run_job
from support.images import snapshot, write_folder
from support.stopped_runs import ask_before, stopped, whole

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(autouse=True)
def _split_by_hash(monkeypatch):
    """The steps and images below are those of a split by hash, not of exact counts."""
    monkeypatch.setattr(SplitConfig, "smallest_class", lambda self, splits: 0)


SAME = (
    "results.csv",
    "events.jsonl",
    "split.csv",
    "scores.json",
    "predictions_val.csv",
    "predictions_test.csv",
    "weights/best.safetensors",
)


def contents(run):
    files = {name: (run / name).read_bytes() for name in SAME}
    return files | CheckpointStore(run / "weights/last").newest()[0].files


def test_resume_needs_no_other_argument(striate, shared_folder):
    run, expected = stopped(shared_folder), contents(whole(shared_folder))
    before = snapshot(shared_folder)
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 0
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0] == "run     run"
    assert "resumed at step 6, epoch 2 of 3; exact: yes" in lines
    assert "test accuracy" in said.out
    assert contents(run) == expected
    assert snapshot(shared_folder) == before
    record = read_json(run / "manifest.json")
    assert (record["status"], record["exact"], record["epochs"]) == ("done", "yes", 3)
    assert [(r["step"], r["exact"]) for r in record["resumed"]] == [(6, "yes")]
    assert not (run / ".lock").exists()


def test_stopped_and_resumed_several_times(striate, shared_folder):
    run, expected = stopped(shared_folder, step=1), contents(whole(shared_folder))
    for step in (0, 3, 2):
        with pytest.MonkeyPatch.context() as patch:
            ask_before(step, patch)
            said = striate("train", "--resume", "run", "--quiet")
        assert said.code == 130
        assert "stopped on request after step" in said.err
        assert "resume exactly with: striate train --resume run" in said.err
    assert striate("train", "--resume", "run", "--quiet").code == 0
    assert contents(run) == expected
    steps = [session["step"] for session in read_json(run / "manifest.json")["resumed"]]
    assert steps == [1, 1, 4, 6]


def test_resume_by_name_and_as_json(striate, shared_folder):
    stopped(shared_folder, "runs/train/mine")
    said = striate("train", "--resume", "mine", "--json")
    assert said.code == 0
    assert (said.json["resumed_at"], said.json["exact"]) == (6, "yes")
    again = striate("train", "--resume", "mine", "--json")
    assert (again.json["resumed_at"], again.json["exact"]) == (12, "yes")


def test_a_finished_run_is_unchanged(striate, shared_folder):
    run = whole(shared_folder)
    before = snapshot(run)
    said = striate("train", "--resume", "whole")
    assert said.code == 0
    assert said.out.startswith("already finished: 3 of 3 epochs")
    assert snapshot(run) == before


def test_settings_without_effect_on_a_finished_run_are_refused(striate, shared_folder):
    run = whole(shared_folder)
    before = snapshot(run)
    said = striate("train", "--resume", "whole", "--lr", "0.5", "--track-norms")
    assert said.code == 2
    assert "finished after 3 epochs" in said.err
    assert "--lr" in said.err
    assert "--track-norms" in said.err
    assert "--epochs N with N above 3" in said.err
    assert striate("train", "--resume", "whole", "--epochs", "2").code == 2
    assert striate("train", "--resume", "whole", "--epochs", "3").code == 0
    assert snapshot(run) == before


def test_killed_before_the_evaluation(striate, shared_folder, monkeypatch):
    """Training is finished, the evaluation is missing: resume does that."""
    expected = contents(whole(shared_folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_job, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            whole(shared_folder, "run")
    assert not Path("run/scores.json").exists()
    said = striate("train", "--resume", "run")
    assert "resumed at step 12, epoch 3 of 3; exact: yes" in said.out
    assert contents(Path("run")) == expected


def test_resume_from_python(shared_folder):
    run, expected = stopped(shared_folder), contents(whole(shared_folder))
    infos = []
    done = st.resume("run", on_resume=infos.append, quiet=True)
    assert done.scores["test"]["count"] == 7
    assert infos[0].state.step == 6
    assert infos[0].exact == "yes"
    assert contents(run) == expected


def test_the_returned_run_is_done(shared_folder, monkeypatch):
    """The report reads the manifest while its status is still running."""
    monkeypatch.setattr(run_job, "write_report", lambda run: run.manifest["status"])
    recipe = st.Recipe(data=str(shared_folder), epochs=1, batch_size=8)
    done = st.train_recipe(recipe, out=Path("one"), quiet=True)
    assert done.manifest == read_json(Path("one/manifest.json"))
    assert done.manifest["status"] == "done"
    assert st.resume("one", epochs=2, quiet=True).manifest["status"] == "done"


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.dense = nn.Linear(64, 2)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return self.dense(self.drop(x.flatten(1)))


def test_resume_with_the_users_own_model_and_data(shared_folder, striate):

    def data():
        return st.load_data(shared_folder)

    settings = {"epochs": 3, "batch_size": 8, "quiet": True}
    st.train(Mine(), data(), out="whole", **settings)
    with pytest.MonkeyPatch.context() as patch:
        ask_before(4, patch)
        with pytest.raises(InterruptedRunError):
            st.train(Mine(), data(), out="run", **settings)
    said = striate("train", "--resume", "run")
    assert said.code == 2
    assert "the model is a Python object" in said.err
    st.resume("run", model=Mine(), quiet=True)
    assert contents(Path("run")) == contents(Path("whole"))


def test_the_random_state_is_restored(shared_folder):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    st.resume(stopped(shared_folder), quiet=True)
    assert torch.equal(torch.get_rng_state(), state)


# --- A7: data loading does not matter


@pytest.mark.parametrize("threads", ["1", "3"])
def test_other_decoding_threads(striate, shared_folder, monkeypatch, threads):
    """The number of decoding threads must not change the result."""
    run, expected = stopped(shared_folder), contents(whole(shared_folder))
    monkeypatch.setattr(os, "cpu_count", lambda: int(threads))
    said = striate("train", "--resume", "run")
    assert "exact: yes" in said.out
    assert contents(run) == expected


# --- A8: inexact runs give the reason


def exactness(said):
    line = next(line for line in said.out.splitlines() if line.startswith("resumed at"))
    return line.split("exact: ")[1]


def test_another_thread_count(striate, shared_folder):
    stopped(shared_folder)
    torch.set_num_threads(2)
    try:
        said = striate("train", "--resume", "run", "--quiet")
    finally:
        torch.set_num_threads(1)
    assert said.code == 0
    assert exactness(said) == "no (threads: 1, now 2)"
    assert read_json(Path("run/manifest.json"))["exact"] == "no (threads: 1, now 2)"


def test_once_inexact_always_inexact(striate, shared_folder):
    """Resuming with the old thread count does not make the run exact again."""

    stopped(shared_folder)
    torch.set_num_threads(2)
    try:
        with pytest.MonkeyPatch.context() as patch:
            ask_before(2, patch)
            assert striate("train", "--resume", "run", "--quiet").code == 130
    finally:
        torch.set_num_threads(1)
    said = striate("train", "--resume", "run", "--quiet")
    assert exactness(said) == "no (threads: 1, now 2; threads: 2, now 1)"


def test_other_versions_and_another_processor(striate, shared_folder, monkeypatch):
    stopped(shared_folder)
    real, machine = manifest.version, manifest.devices.compute_environment
    monkeypatch.setattr(
        manifest, "version", lambda name: "9.9" if name == "torch" else real(name)
    )
    other = {"processor": "Another", "instructions": "AVX9"}
    monkeypatch.setattr(
        manifest.devices, "compute_environment", lambda device: machine(device) | other
    )
    said = exactness(striate("train", "--resume", "run", "--quiet"))
    assert said.startswith(f"no (torch: {torch.__version__}, now 9.9; processor: ")
    assert said.endswith("now AVX9)")


def test_another_device(striate, shared_folder, monkeypatch):
    """Without a real one: no test machine has a GPU."""
    from striate.workflows.train import resume as resume_module

    stopped(shared_folder)
    monkeypatch.setattr(
        resume_module.devices, "select_device", lambda name: torch.device("cuda")
    )
    monkeypatch.setattr(resume_module, "prepare_model", lambda *_: None)
    monkeypatch.setattr(resume_module, "train_in_folder", lambda *_: 1 / 0)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Some GPU")
    infos = []
    with pytest.raises(ZeroDivisionError):
        st.resume("run", on_resume=infos.append)
    assert "device: cpu, now cuda" in infos[0].exact
    assert "now Some GPU" in infos[0].exact
    assert "floating-point sums on cuda are not deterministic" in infos[0].exact


def test_other_settings(striate, shared_folder):
    """They may change, are recorded, and are printed."""
    stopped(shared_folder)
    said = striate("train", "--resume", "run", "--epochs", "5", "--lr", "0.001")
    assert exactness(said) == "no (epochs: 3, now 5; lr: 0.003, now 0.001)"
    settings = yaml.safe_load(Path("run/args.yaml").read_text())
    assert (settings["epochs"], settings["lr"]) == (5, 0.001)
    assert read_json(Path("run/manifest.json"))["epochs"] == 5


def test_settings_edited_by_hand(striate, shared_folder):
    run = stopped(shared_folder)
    text = (run / "args.yaml").read_text()
    (run / "args.yaml").write_text(text.replace("momentum: 0.9", "momentum: 0.8"))
    said = striate("train", "--resume", "run", "--quiet")
    assert exactness(said) == "no (momentum: 0.9, now 0.8)"


def test_a_finished_run_can_be_made_longer(striate, shared_folder):
    whole(shared_folder)
    said = striate("train", "--resume", "whole", "--epochs", "4", "--quiet")
    assert "resumed at step 12, epoch 4 of 4; exact: no (epochs: 3, now 4)" in said.out
    rows = Path("whole/results.csv").read_text().splitlines()
    assert len(rows) == 5


def test_extending_a_run_removes_its_old_evaluation(striate, shared_folder):
    """The best weights may have changed since the evaluation."""
    run = whole(shared_folder)
    (run / "report.html").write_text("old")
    (run / "plots").mkdir(exist_ok=True)
    (run / "plots/confusion.png").write_text("old")
    (run / "plots/mine.png").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        ask_before(2, patch)
        with pytest.raises(InterruptedRunError):
            st.resume("whole", epochs=5, quiet=True)
    for name in ("scores.json", "report.html", "plots/confusion.png"):
        assert not (run / name).exists()
    assert not list(run.glob("predictions_*.csv"))
    assert (run / "plots/mine.png").exists()
    record = read_json(run / "manifest.json")
    assert record["status"] == "stopped"
    assert not record.keys() & {"weights", "best_epoch", "epochs", "seconds", "speed"}
    assert striate("report", "whole").code == 2
    said = striate("compare", "whole", str(whole(shared_folder, "other")))
    assert "training stopped (stopped on request" in said.err
    assert st.resume("whole", quiet=True).scores["test"]["count"] == 7
    assert "reason" not in read_json(run / "manifest.json")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("model", "lenet5_modern"),
        ("batch-size", "4"),
        ("seed", "3"),
        ("optimizer", "sgd"),
        ("image-size", "16"),
        ("val-fraction", "0.3"),
    ],
)
def test_fixed_settings_cannot_change(striate, shared_folder, flag, value):
    run = stopped(shared_folder)
    before = snapshot(run)
    said = striate("train", "--resume", "run", f"--{flag}", value)
    assert said.code == 2
    assert f" to {value} in " in said.err or "to (16, 16) in" in said.err
    assert f"where: --{flag}" in said.err
    assert "train a new run without --resume" in said.err
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("batch_size: 8", "batch_size: 4"),
        ("seed: 0", "seed: 7"),
        ("optimizer: adamw", "optimizer: sgd"),
    ],
)
def test_fixed_settings_cannot_be_edited(shared_folder, was, becomes):
    run = stopped(shared_folder)
    text = (run / "args.yaml").read_text()
    assert f"\n{was}" in text
    (run / "args.yaml").write_text(text.replace(f"\n{was}", f"\n{becomes}"))
    before = snapshot(run)
    name, value = becomes.split(": ")
    with pytest.raises(
        SettingError, match=f"{name} cannot change .* to {value} in"
    ) as said:
        st.resume("run", quiet=True)
    assert "args.yaml" in str(said.value)
    assert snapshot(run) == before


@pytest.mark.parametrize(
    "words",
    [
        ["--out", "x"],
        ["--overwrite"],
        ["--preset", "fashion-gray"],
        ["--config", "a.yaml"],
    ],
)
def test_flags_that_resume_refuses(striate, words):
    said = striate("train", *words, "--resume", "run")
    assert said.code == 2
    assert "--resume uses the value stored in the run" in said.err
    assert "leave out this flag: striate train --resume run" in said.err


# --- A8: other images


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", count=20)


def row(run, split):
    from striate.core.files import read_csv

    rows = read_csv(run / "split.csv")
    return next(Path(r["image_path"]) for r in rows if r["split"] == split)


def test_added_images_are_noted_and_not_used(striate, photos):
    run, expected = stopped(photos), contents(whole(photos))
    shutil.copy(photos / "across/00.png", photos / "across/new.png")
    said = striate("train", "--resume", "run", "--quiet")
    assert exactness(said) == "yes"
    assert (
        "note: 1 image added since the run began, not used: across/new.png" in said.out
    )
    assert contents(run) == expected


def test_removed_and_changed_images_are_noted(striate, photos):
    run = stopped(photos)
    gone, other = row(run, "train"), row(run, "test")
    (photos / gone).unlink()
    shutil.copy(photos / row(run, "val"), photos / other)
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 0
    assert exactness(said).endswith(", now 1 removed and 1 changed)")
    assert exactness(said).startswith("no (images: ")
    assert f"note: 1 image removed or no longer usable: {gone}" in said.out
    assert f"note: 1 image changed since the run began: {other}" in said.out


def test_many_changes_are_counted(striate, photos):
    stopped(photos)
    for i in range(8):
        (photos / f"across/{i:02d}.png").unlink()
    said = striate("train", "--resume", "run", "--quiet")
    assert "note: 8 images removed or no longer usable: across/00.png, " in said.out
    assert "across/02.png and 5 more" in said.out


def test_a_removed_class_is_refused(striate, photos):
    run = stopped(photos)
    before = snapshot(run)
    write_folder(photos, ("third",), 5)
    shutil.rmtree(photos / "down")
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 2
    assert "Traceback" not in said.err
    assert snapshot(run) == before


def test_missing_images_are_refused(striate, photos):
    run = stopped(photos)
    before = snapshot(run)
    shutil.rmtree(photos)
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 2
    assert "the images of the run are no longer at" in said.err
    assert "striate evaluate run --data NEW_FOLDER" in said.err
    assert snapshot(run) == before


def test_moved_images_are_recognized_by_their_hashes(striate, photos, tmp_path):
    """There was no way to go on with a run whose folder had another name."""
    run = stopped(photos)
    other = write_folder(tmp_path / "other", count=30, seed=8)
    said = striate("train", other, "--resume", "run", "--quiet")
    assert said.code == 2
    assert "--resume uses the images of the run" in said.err
    photos.rename(tmp_path / "new place")
    said = striate("train", other, "--resume", "run", "--quiet")
    assert said.code == 2
    assert "these are not the images of the run" in said.err
    said = striate("train", "new place", "--resume", "run", "--quiet")
    assert said.code == 0
    facts = read_json(run / "manifest.json")
    assert facts["status"] == "done"
    assert facts["data"]["source"] == str(tmp_path / "new place")
    assert facts["data"]["moved_from"] == str(photos)
    assert facts["exact"] == "yes"


# --- checkpoints and journals that are not what they were


def newest(run):
    return CheckpointStore(run / "weights/last").newest()[0].path


def test_a_damaged_checkpoint_is_named_and_skipped(striate, shared_folder):
    run, expected = stopped(shared_folder), contents(whole(shared_folder))
    (newest(run) / "optimizer.safetensors").write_bytes(b"?")
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 0
    name = "step-00000006-epoch-0001"
    assert f"note: not used: {name}: optimizer.safetensors has 1 bytes" in said.out
    assert "resumed at step 0, epoch 1 of 3; exact: yes" in said.out
    assert contents(run) == expected


def test_no_valid_checkpoint(striate, shared_folder):
    run = stopped(shared_folder)
    for path in run.glob("weights/last/step-*/state.json"):
        path.unlink()
    before = snapshot(run)
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 2
    assert "no checkpoint is valid:\n  step-00000006-epoch-0001: state.json" in said.err
    assert "train again: --out run --overwrite" in said.err
    assert snapshot(run) == before


@pytest.mark.parametrize("how", ["edited", "cut", "gone"])
def test_an_edited_csv_log_makes_the_run_inexact(striate, shared_folder, how):
    run = stopped(shared_folder)
    path = run / "events.jsonl"
    text = path.read_text()
    if how == "gone":
        path.unlink()
    else:
        path.write_text(text.replace("0", "1", 1) if how == "edited" else text[:20])
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 0
    assert exactness(said) == "no (events.jsonl was changed)"


@pytest.mark.parametrize("name", ["args.yaml", "manifest.json", "everything"])
def test_stopped_before_the_run_folder_was_complete(striate, shared_folder, name):
    run = stopped(shared_folder)
    if name == "everything":
        shutil.rmtree(run)
    else:
        (run / name).unlink()
    said = striate("train", "--resume", "run")
    assert said.code == 2
    assert "Traceback" not in said.err


def test_stopped_before_its_first_checkpoint(striate, shared_folder):
    """It starts again with its own settings."""
    run = stopped(shared_folder, lr=0.01)
    expected = contents(whole(shared_folder, lr=0.01))
    shutil.rmtree(run / "weights")
    (run / "split.csv").unlink()
    (run / ".manifest.json.0123abcd").write_text("half")
    mine = [run / "notes.txt", run / "plots/mine.png", run / "figures/mine.png"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 0
    for path in mine:
        assert path.read_text() == "mine"
        path.unlink()
    (run / "figures").rmdir()
    assert not list(run.glob(".manifest*"))
    assert (
        "note: the run was stopped before its first checkpoint; training starts again"
        in said.out
    )
    assert contents(run) == expected


@pytest.mark.parametrize("gone", ["weights/last", "weights"])
def test_a_trained_run_is_never_cleared(striate, shared_folder, gone):
    """Without a checkpoint a run may still be finished, and its folder hold notes."""
    run = whole(shared_folder, "run")
    shutil.rmtree(run / gone)
    (run / "notes.txt").write_text("mine")
    before = snapshot(run)
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 2
    assert "the run is finished, but has no checkpoint in weights/last" in said.err
    assert "train again: --out run --overwrite" in said.err
    assert snapshot(run) == before


def test_partial_files_are_removed(shared_folder, monkeypatch):
    run = stopped(shared_folder)
    left = [".manifest.json.0123abcd", "weights/.best.safetensors.0123abcd"]
    for name in left:
        (run / name).write_text("half")
    (run / "weights/last/.step-00000009-epoch-0001.0123abcd").mkdir()
    (run / ".mine").write_text("kept")
    monkeypatch.setattr(
        "striate.workflows.train.resume.train_in_folder", lambda *_: 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        st.resume("run")
    hidden = {str(path.relative_to(run)) for path in run.rglob(".*")}
    assert hidden == {".mine"}


# --- A9: one process a run


HOLD = """
import pathlib, sys
from striate.run.lock import lock_folder
with lock_folder(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process():
    """Start a process that holds a folder until its input ends, or it is killed."""
    started = []

    def start(folder):
        words = [sys.executable, "-c", HOLD, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(words, **pipes))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.communicate(timeout=60)


def test_a_second_process_is_refused(striate, shared_folder, other_process):
    run = stopped(shared_folder)
    process = other_process(run)
    before = snapshot(run)
    who = f"the run folder is in use by process {process.pid} on {socket.gethostname()}"
    for words in (["--resume", "run"], [shared_folder, "--out", "run", "--overwrite"]):
        said = striate("train", *words, "--quiet")
        assert said.code == 2
        assert who in said.err
        assert (
            "wait until that process ends, stop it, or choose another --out" in said.err
        )
    assert snapshot(run) == before
    process.kill()
    process.wait()
    assert (run / ".lock").exists()
    assert striate("train", "--resume", "run", "--quiet").code == 0


def test_two_resumes_in_one_process(shared_folder):
    run = stopped(shared_folder)
    with lock_folder(run), pytest.raises(RunError, match=f"process {os.getpid()} on"):
        st.resume(run)


def test_an_empty_lock_file(shared_folder, monkeypatch):
    run = stopped(shared_folder)
    with lock_folder(run):
        (run / ".lock").write_text("")
        with (
            pytest.raises(RunError, match="in use by another process"),
            lock_folder(run),
        ):
            pass


def test_a_lock_file_removed_while_waiting(tmp_path, monkeypatch):
    """The name may mean another file by the time the lock is got."""
    real, met = fcntl.flock, []

    def late(handle, how):
        if not met:
            (tmp_path / ".lock").unlink()
        met.append(handle)
        return real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with lock_folder(tmp_path):
        assert len(met) == 2
        assert read_json(tmp_path / ".lock")["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


NOBODY = 1 << 22  # above the largest process number of Linux


@pytest.mark.parametrize(
    ("pid", "host", "refused"),
    [
        (1, None, True),
        (NOBODY, None, False),
        (1, "elsewhere", False),
        (0, None, False),
    ],
)
def test_a_file_system_without_locks(tmp_path, monkeypatch, pid, host, refused):
    """There the process named in the file decides, if it is of this machine."""

    def none(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    named = {"pid": pid, "host": host or socket.gethostname()}
    (tmp_path / ".lock").write_text(json.dumps(named))
    if refused:
        with (
            pytest.raises(RunError, match="in use by process 1 on"),
            lock_folder(tmp_path),
        ):
            pass
    else:
        with lock_folder(tmp_path):
            pass


def test_a_process_of_another_user_is_alive(monkeypatch):
    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert lock._is_alive(1)


def test_a_folder_that_cannot_be_locked(tmp_path, monkeypatch):
    def broken(handle, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    error = pytest.raises(StorageError, match="an input/output error")
    with error, lock_folder(tmp_path):
        pass


def test_overwrite_removes_all_but_the_lock(shared_folder):
    run = stopped(shared_folder)
    (run / "mine").mkdir()
    st.train_recipe(
        st.Recipe(data=str(shared_folder), epochs=1, batch_size=8),
        out=run,
        overwrite=True,
        quiet=True,
    )
    assert not (run / "mine").exists()
    assert len((run / "results.csv").read_text().splitlines()) == 2


def test_an_empty_folder_can_be_used(shared_folder, striate):
    Path("empty").mkdir()
    Path("empty/.manifest.json.0123abcd").write_text("{")
    said = striate("train", shared_folder, "--out", "empty", "--epochs", "1")
    assert said.code == 0
    Path("full").mkdir()
    Path("full/.git").mkdir()
    said = striate("train", shared_folder, "--out", "full", "--epochs", "1")
    assert said.code == 2
    assert "the output folder already exists" in said.err


def test_invalid_settings_on_resume(shared_folder):
    stopped(shared_folder)
    with pytest.raises(SettingError):
        st.resume("run", epochs=0)
