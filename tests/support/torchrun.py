"""Starts processes by torchrun and checks that none is left over."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.forks import unmeasured

SUPPORT = Path(__file__).parent
LONG = 240.0  # seconds; a run that gloo's own timeout had to end would take 1,800


@dataclass(frozen=True)
class Ended:
    """How a start of several processes ended."""

    code: int
    said: str


def launch(program, *words, count=2, restarts=0, fault="none:-1:-1") -> Ended:
    """Run a program of this folder in several processes; none may remain."""
    command = ["-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), "--max-restarts", str(restarts)]
    # torchrun ends the others once it sees that one is gone; they are to say so first.
    command += ["--monitor-interval", "1"]
    given = {**unmeasured(), "FAULT": fault}
    return run_python(*command, SUPPORT / program, *words, environment=given)


def run_python(*words, environment=os.environ) -> Ended:
    """Run what follows `python`, and wait for its end."""
    path = os.pathsep.join(
        [
            str(SUPPORT.parents[1] / "src"),
            str(SUPPORT.parent),
            os.environ.get("PYTHONPATH", ""),
        ]
    )
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    return Ended(done.returncode, done.stdout + done.stderr)


def left_behind(mark) -> list[str]:
    """Return the processes of this folder that still run and were given a word.

    Of this folder only: other tests call their runs the same, at the same time.
    """
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            here = (place / "cwd").readlink() == Path.cwd()
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if here and os.fsencode(str(mark)) in words:
            found.append(place.name)
    return found
