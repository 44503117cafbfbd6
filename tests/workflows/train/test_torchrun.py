"""`torchrun -m striate train`: what dies, hangs or is stopped, and how it goes on.

`faulty_rank.py` is `striate` with one fault at one step. That it bites: without the
watch a stopped rank keeps the others waiting for ever, and the test's time runs out.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import time
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from striate.core.files import read_csv
from support.torchrun import launch, left_behind

SETTINGS = ("train", "digits", "--epochs", "2", "--save-every", "0")
SAME = ("results.csv", "events.jsonl", "weights/best.safetensors")


def trained(out, *more, **how):
    return launch("faulty_rank.py", *SETTINGS, "--out", out, *more, **how)


def hashes(run):
    return [
        hashlib.sha256((Path(run) / name).read_bytes()).hexdigest() for name in SAME
    ]


def status(run):
    return json.loads((Path(run) / "manifest.json").read_text())


def losses(run):
    rows = read_csv(Path(run) / "results.csv")
    return [float(row[name]) for row in rows for name in ("train_loss", "val_loss")]


# Averaged weights and a second view too, which every rank must judge alike.
SHORT = ("--epochs", "2", "--batch-size", "8", "--save-every", "0")
SHORT += ("--ema", "0.9", "--tta", "flip")
STEPS = 6
STARTING = 10.0  # seconds for both to have begun on a busy machine


def test_one_process_two_processes_and_a_restart(striate, shared_folder):
    """The same curve; after SIGKILL of rank 0 torchrun's restart ends bit for bit."""
    words = "train", shared_folder, *SHORT, "--out"
    assert striate(*words, "one", "--quiet").code == 0
    both = *words, "two", "then", *words, "killed"
    ended = launch("faulty_rank.py", *both, restarts=1, fault="kill:0:5")
    assert ended.code == 0, ended.said
    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)
    assert "2 processes of" in ended.said
    assert "rank 0 (process" in ended.said
    assert "exact: yes" in ended.said
    assert hashes("killed") == hashes("two")
    assert len(status("killed")["resumed"]) == 1
    assert "resumed" not in status("two")
    assert status("two")["train_accuracy"] == status("one")["train_accuracy"]
    assert not left_behind("killed")


@pytest.mark.slow
def test_a_restart_with_more_images(striate):
    assert striate(*SETTINGS, "--out", "one", "--quiet").code == 0
    whole = trained("two")
    assert whole.code == 0, whole.said
    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)
    killed = trained("killed", restarts=1, fault="kill:0:20")
    assert killed.code == 0, killed.said
    assert hashes("killed") == hashes("two")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("kill", "died"),
        ("stop", "was stopped"),
        ("sleep", "does not answer"),
        # gloo may abort a process whose message has another size.
        ("skip", "the ranks are at different|died"),
        ("raise", "a fault of its own"),
    ],
)
def test_a_fault_names_its_rank_and_leaves_no_process(kind, words, rank):
    ended = trained("run", "--rank-timeout", "5", fault=f"{kind}:{rank}:7")
    assert ended.code == 1
    assert re.search(words, ended.said)
    assert f"rank {rank}" in ended.said
    assert not left_behind("run")


@pytest.mark.slow
def test_a_slow_rank_is_not_taken_for_a_hung_one():
    assert trained("run", fault="slow:1:7").code == 0
    assert status("run")["status"] == "done"


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_after_the_same_step():
    trained("run", fault="term:1:7")
    assert status("run")["reason"] == "stopped on request after step 8 of 34"
    assert not left_behind("run")


@pytest.mark.slow
def test_no_rank_outlives_torchrun():
    trained("run", "--epochs", "60", fault="orphan:1:7")  # it is seen within a second
    for _ in range(60):
        if not left_behind("run"):
            break
        time.sleep(1)
    assert not left_behind("run")
    assert status("run")["status"] == "stopped"


@pytest.mark.slow
def test_nan_on_one_rank_stops_all():
    ended = trained("run", fault="nan:1:7")
    assert ended.code == 1
    assert "on rank 1" in ended.said
    assert ended.said.count("the training loss became nan") == 1


@pytest.mark.slow
def test_resume_with_another_number_of_processes(striate):
    whole = trained("two")
    assert whole.code == 0, whole.said
    trained("run", fault="term:1:20")
    said = striate("train", "--resume", "run")
    assert said.code == 0
    assert "processes: 2, now 1" in said.out
    assert losses("run") == pytest.approx(losses("two"), rel=1e-4)


def kills(draw, count):
    """Return kills of either rank before random steps."""
    steps = sorted(draw.choices(range(STEPS), k=count))
    return [f"kill:{draw.randrange(2)}:{step}" for step in steps]


class Launcher:
    """Do what torchrun does, with forks instead of new processes."""

    def __init__(self, forks):
        self.forks = forks
        self.said = forks.said.parent
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def start(self, words, attempt=0, fault="none:-1:-1"):
        """Start both ranks and wait for their ends; return exit codes and seconds."""
        began = time.monotonic()
        pids = [
            self.forks.start(*words, rank=self._told(rank, attempt, fault))
            for rank in (0, 1)
        ]
        codes = [self.forks.end(pid) for pid in pids]
        return codes, time.monotonic() - began

    def _told(self, rank, attempt, fault):
        names = ("RANK", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")
        values = (rank, rank, attempt, self.store.port)
        both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        both |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "FAULT": fault}
        return both | dict(zip(names, map(str, values), strict=True))


def killed_and_started_again(forks, words, faults):
    """Restart a run after each fault; the other rank must end with a message."""
    launcher = Launcher(forks)
    for attempt, fault in enumerate(faults):
        codes, seconds = launcher.start(words, attempt, ",".join(faults))
        rank = int(fault.split(":")[1])
        assert codes[rank] == -signal.SIGKILL, fault
        assert codes[1 - rank] == 1, fault
        assert seconds < 15 + STARTING, fault
        said = (launcher.said / f"said-{1 - rank}.txt").read_text()
        assert f"rank {rank} (process" in said, (fault, said)
    codes, _ = launcher.start(words, len(faults))
    assert codes == [0, 0], (launcher.said / "said-0.txt").read_text()


def test_ten_kills(forks, shared_folder, tmp_path):
    """F1: any rank, any step; the result equals that of an uninterrupted run."""
    words = "train", shared_folder, *SHORT, "--out"
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert Launcher(forks).start((*words, whole))[0] == [0, 0]
    killed_and_started_again(forks, (*words, run), kills(random.Random(0), 10))
    assert hashes(run) == hashes(whole)
    assert len(status(run)["resumed"]) == 10


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("stop:1:3", "was stopped"),
        ("skip:1:2", "the ranks are at different|died"),
        ("kill:1:0", "died"),
    ],
)
def test_a_rank_stopped_or_dead_before_the_first_all_reduce(
    forks, shared_folder, tmp_path, fault, words
):
    """F2: found after --rank-timeout, where gloo by itself would wait 30 minutes."""
    launcher = Launcher(forks)
    given = "train", shared_folder, *SHORT, "--rank-timeout", "3"
    codes, seconds = launcher.start((*given, "--out", tmp_path / "run"), fault=fault)
    assert 0 not in codes
    assert seconds < 15 + STARTING
    said = (launcher.said / "said-0.txt").read_text()
    assert re.search(words, said)
    assert "rank 1" in said


@pytest.mark.slow
def test_three_hundred_kills(forks, shared_folder, tmp_path):
    words = "train", shared_folder, *SHORT, "--out"
    whole, draw = tmp_path / "whole", random.Random(1)
    assert Launcher(forks).start((*words, whole))[0] == [0, 0]
    for number in range(30):
        run = tmp_path / str(number)
        killed_and_started_again(forks, (*words, run), kills(draw, 10))
        assert hashes(run) == hashes(whole), number
