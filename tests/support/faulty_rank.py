"""Run `striate …` as one of several ranks, with a fault injected in one of them.

`FAULT=kind:rank:step` in the environment says what, where and before which step, at the
first start; what torchrun starts again has the next fault of several with commas
between them, and is sound after the last. Of several command lines with `then` between
them the last has the faults, and is all that is started again: importing torch takes
longer than a short run.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import torch

from striate.cli.main import main
from striate.engine.distributed.distributed_step import DistributedStep
from striate.run import report_page

NONE = "none:-1:-1"
STARTS = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
ALL = [*os.environ.get("FAULT", NONE).split(","), NONE]
KIND, RANK, STEP = ALL[min(STARTS, len(ALL) - 1)].split(":")
RANK, STEP = int(RANK), int(STEP)


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


def _compute(seconds: float) -> None:
    """Take longer over a step than a hung rank would be given."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        torch.randn(64, 64) @ torch.randn(64, 64)


FAULTS = {
    "none": lambda: None,
    "kill": lambda: _send(signal.SIGKILL),
    "stop": lambda: _send(signal.SIGSTOP),
    "sleep": lambda: time.sleep(600),
    "slow": lambda: _compute(16.0),
    "term": lambda: _send(signal.SIGTERM),
    "orphan": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "raise": lambda: (_ for _ in ()).throw(MemoryError("a fault of its own")),
}
_learn, _exchange = DistributedStep.__call__, DistributedStep._exchange


FIRST = STARTS == 0


before: list[list[str]] = []  # what is run first, without a fault


def _mine(step: int) -> bool:
    mine = int(os.environ["RANK"]) == RANK and step == STEP
    return mine and not (FIRST and before)


def learn(self, x, y, step):
    if _mine(step):
        if KIND == "nan":
            x[1] = float("nan")
        elif KIND != "skip":
            FAULTS[KIND]()
    return _learn(self, x, y, step)


def exchange(self, step, loss, images):
    if KIND == "skip" and _mine(step):
        self.images = 2 * images
        return loss
    return _exchange(self, step, loss, images)


def commands(words: list[str]) -> list[list[str]]:
    """Split at `then`."""
    found: list[list[str]] = [[]]
    for word in words:
        if word == "then":
            found.append([])
        else:
            found[-1].append(word)
    return found


def be_faulty() -> None:
    """Let the fault happen in this process, and leave a run's charts out.

    Those are drawn by a library that takes longer to import than a short run lasts.
    """
    DistributedStep.__call__ = learn
    DistributedStep._exchange = exchange
    report_page.save_curve = report_page.save_matrix = lambda block, path: None


if __name__ == "__main__":
    be_faulty()
    *before, last = commands(sys.argv[1:])
    while FIRST and before:
        if code := main(before[0]):
            sys.exit(code)
        del before[0]
    sys.exit(main(last))
