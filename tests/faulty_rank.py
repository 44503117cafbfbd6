"""Run `striate …` as one of several ranks, in one of which something goes wrong.

`FAULT=kind:rank:step` in the environment says what, where and before which step, at the
first start only: what torchrun starts again is sound.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import torch

from striate.cli.main import main
from striate.engine.ranks.exchange import Exchange
from striate.engine.ranks.step import SharedStep

KIND, RANK, STEP = os.environ.get("FAULT", "none:-1:-1").split(":")
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
_learn, _exchange = SharedStep._take, Exchange.__call__


def _mine(step: int) -> bool:
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    return first and int(os.environ["RANK"]) == RANK and step == STEP


def learn(self, x, y, step):
    if _mine(step):
        if KIND == "nan":
            x[1] = float("nan")
        elif KIND != "skip":
            FAULTS[KIND]()
    return _learn(self, x, y, step)


def exchange(self, step, cost, pictures, failed):
    if KIND == "skip" and _mine(step):
        return cost, pictures
    return _exchange(self, step, cost, pictures, failed)


SharedStep._take = learn
Exchange.__call__ = exchange
sys.exit(main())
