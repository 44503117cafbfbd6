"""Runs of striate in processes that may be killed: torch is imported once for all.

As a program it is the server: it forks a process for each command line it is told,
and answers how that process ended. `Forks` is the other end.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

HELD = 5  # the batch of training that a run waits at, in its second epoch
_MEASURED = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
_ANEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def unmeasured() -> dict[str, str]:
    """Return the environment, for processes whose coverage is not measured.

    What is killed brings none home, or half a file, and would only be slower for it.
    """
    return {key: value for key, value in os.environ.items() if key not in _MEASURED}


class Forks:
    """Starts runs in processes of their own; use it as a context manager.

    Args:
        folder: Where what they say is kept, and whether they are saving just now.
    """

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said.txt"
        self._flag = folder / "saving"
        self._flag.write_bytes(b"\0")
        environment = unmeasured() | {"OMP_NUM_THREADS": "1"}
        words = [sys.executable, __file__, str(self._flag), str(self.said)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen(words, env=environment, **pipes)
        assert self._ask("") == "ready"

    def _ask(self, line: str) -> str:
        if line:
            self._server.stdin.write(line + "\n")
            self._server.stdin.flush()
        return self._server.stdout.readline().strip()

    def start(
        self,
        *words,
        terminal: str = "",
        parent: bool = False,
        hold: Path | str = "",
        rank: dict | None = None,
    ) -> int:
        """Start a command line; return its process.

        Args:
            words: What follows `striate`.
            terminal: The device of one, for a process that is to own it.
            parent: Put a process between, that reads what it says, and return that.
            hold: A file that a run writes at its batch number `HELD`; it waits there
                until the file is gone. Once Ctrl-C was heard, "asked" stands in it.
            rank: What a launcher would say to one of several, and `FAULT`, see
                `faulty_rank.py`; what it says is kept in `said-<RANK>.txt`.
        """
        self._flag.write_bytes(b"\0")
        typed = [os.fspath(word) for word in words]
        order = {"words": typed, "terminal": terminal, "parent": parent}
        order |= {"rank": rank or {}, "hold": os.fspath(hold)}
        return int(self._ask(json.dumps(order)))

    def end(self, pid: int) -> int:
        """Wait for a process; return its exit code, or minus the signal it died of."""
        return int(self._ask(str(pid)))

    def run(self, *words) -> int:
        return self.end(self.start(*words))

    @property
    def saving(self) -> bool:
        """Say whether the last process was, or died, inside a save."""
        return self._flag.read_bytes() == b"\1"

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._server.communicate(timeout=30)


def serve(flag: str, said: str) -> None:

    from striate.cli import printing as show  # noqa: F401 - once, for every fork
    from striate.engine.checkpoint_store import CheckpointStore
    from striate.models import tutorial_nets  # noqa: F401
    from striate.run import manifest
    from striate.workflows.train import resume, run_job  # noqa: F401

    with open(flag, "r+b") as file:
        shared = mmap.mmap(file.fileno(), 1)
    real = CheckpointStore.write

    def write(*words, **options):
        shared[0] = 1
        try:
            return real(*words, **options)
        finally:
            shared[0] = 0

    CheckpointStore.write = write
    # Drawn from what is compared, by a library that takes longer than the run; and
    # what git says, which takes as long.
    run_job.write_report = lambda run: None
    manifest.git_commit = lambda: None
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
            continue
        if order["rank"]:  # DDP imports it, which takes two seconds: once for all
            import torch._dynamo  # noqa: F401
        pid = os.fork()
        if not pid:
            _be_child(order, said)
        print(pid, flush=True)


def _be_child(order: dict, said: str) -> None:
    # As a shell starts it, also where the tests run under `nohup`, which ignores this.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if order["terminal"]:
        os.setsid()
        streams = os.open(order["terminal"], os.O_RDWR)  # and it is ours to lose
    elif order["parent"]:
        streams = _below_a_reader()
    elif order["rank"]:
        own = f"said-{order['rank']['RANK']}.txt"
        streams = os.open(Path(said).with_name(own), _ANEW)
    else:
        streams = os.open(said, _ANEW)
    for stream in (1, 2):
        os.dup2(streams, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", 1) for n in (1, 2))
    if order["rank"]:
        os.environ.update(order["rank"])
        import faulty_rank  # reads what is its fault

        faulty_rank.be_faulty()
    if order["hold"]:
        _wait_on_the_way(Path(order["hold"]))
    _be_striate(order["words"])


def _below_a_reader() -> int:
    """Go on as a child of this process, which reads until it is killed."""
    out, into = os.pipe()
    if os.fork():
        os.close(into)
        while os.read(out, 4096):
            pass
        os._exit(0)
    os.close(out)
    return into


def _wait_on_the_way(place: Path) -> None:
    """Let training wait at a batch, and say there whether Ctrl-C was heard."""
    from striate.data.batches import Batches

    real, given = Batches.__call__, count(1)

    def call(self, epoch=0, start=0):
        for batch in real(self, epoch, start):
            if self.shuffle and next(given) == HELD:
                _wait(place)
            yield batch

    Batches.__call__ = call


def _wait(place: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    place.write_text("waits")
    while place.exists():
        if signal.getsignal(signal.SIGINT) != before:
            with suppress(FileNotFoundError), place.open("r+") as file:
                file.write("asked")
        time.sleep(0.005)


def _be_striate(words: list[str]) -> None:
    from striate.cli.main import main

    code = 99
    try:
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve(*sys.argv[1:])
