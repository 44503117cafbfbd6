"""Fault A1: killed at any moment, as often as you like, it ends in the same bytes."""

import hashlib
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from striate.engine.checkpoint_store import CheckpointStore
from support.forks import Forks
from support.images import write_folder
from support.power_loss import in_memory

SETTINGS = (
    *("--epochs", "3", "--batch-size", "8", "--save-every", "0", "--quiet"),
    *("--ema", "0.9"),  # more to be kept than weights and optimizer
)


def digest(run: Path) -> dict[str, str]:
    """Hash everything that must not depend on how often a run was killed."""
    sealed, passed_over = CheckpointStore(run / "weights/last").newest()
    assert passed_over == []
    files = {f"last/{name}": content for name, content in sealed.files.items()}
    names = ("results.csv", "events.jsonl", "split.csv", "args.yaml", "scores.json")
    for name in (*names, "predictions_test.csv", "weights/best.safetensors"):
        files[name] = (run / name).read_bytes()
    return {name: hashlib.sha256(b).hexdigest() for name, b in files.items()}


@dataclass
class Slaughter:
    """Runs that are killed at random moments and started again, to their ends.

    Args:
        forks: Where they run.
        folder: Where they lie.
        seed: Of the moments.
    """

    forks: Forks
    folder: Path
    seed: int
    kills: int = 0
    inside: int = 0
    finishes: int = 0

    def prepare(self):
        """Make the images; see how long a run takes, and what it comes to."""
        self.images = write_folder(self.folder / "stripes", count=20)
        whole = self.folder / "whole"
        for _ in range(2):  # the second knows what the first had to find out
            began = time.perf_counter()
            words = self.images, *SETTINGS, "--out", whole, "--overwrite"
            assert self.forks.run("train", *words) == 0
            self.lasts = time.perf_counter() - began
        self.expected = digest(whole)
        self.draw = random.Random(self.seed)

    def one_run(self):
        """Start a run, kill it, and start it again until one start comes through.

        The time to a kill is drawn from half a run's length at first, so that most
        runs are killed several times; what is left gets shorter each time, and the
        time longer, so that its end is met too.
        """
        run = self.folder / f"run{self.finishes}"
        longest = self.lasts / 2
        while True:
            pid = self.forks.start("train", *self._words(run))
            time.sleep(self.draw.uniform(0, longest))
            longest *= 1.1  # on a machine that has become busy, too
            os.kill(pid, signal.SIGKILL)
            code = self.forks.end(pid)
            if code == 0:
                break
            assert code == -signal.SIGKILL, self.forks.said.read_text()
            self.kills += 1
            self.inside += self.forks.saving
        assert digest(run) == self.expected
        left = {str(p.relative_to(run)) for p in run.rglob(".*")}
        assert left == set()
        self.finishes += 1

    def _words(self, run):
        """What an automatic restart would type: --resume wherever a run is."""
        if (run / "manifest.json").exists() and (run / "args.yaml").exists():
            return "--resume", run, "--quiet"
        return self.images, *SETTINGS, "--out", run, "--overwrite"


def slaughter(forks, kills, inside, seed):
    with in_memory() as folder:
        done = Slaughter(forks, folder, seed)
        done.prepare()
        while done.kills < kills or done.inside < inside:
            done.one_run()
        said = f"{done.kills} kills, {done.inside} inside a save, {done.finishes} runs"
        print(said)


def test_50_kills(forks):
    slaughter(forks, kills=50, inside=5, seed=0)


@pytest.mark.slow
def test_1000_kills(forks):
    slaughter(forks, kills=1000, inside=200, seed=1)
