"""Runs of striate in processes that may be killed: torch is imported once for all.

As a program it is the server: it forks a process for each command line it is told,
and answers how that process ended. `Forks` is the other end.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path


class Forks:
    """Starts runs in processes of their own; use it as a context manager.

    Args:
        folder: Where what they say is kept, and whether they are saving just now.
    """

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said.txt"
        self._flag = folder / "saving"
        self._flag.write_bytes(b"\0")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        words = [sys.executable, __file__, str(self._flag), str(self.said)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen(words, env=environment, **pipes)
        assert self._ask("") == "ready"

    def _ask(self, line: str) -> str:
        if line:
            self._server.stdin.write(line + "\n")
            self._server.stdin.flush()
        return self._server.stdout.readline().strip()

    def start(self, *words) -> int:
        """Start a command line; return its process."""
        self._flag.write_bytes(b"\0")
        return int(self._ask(json.dumps([os.fspath(word) for word in words])))

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
    import torch._dynamo  # noqa: F401 - what the first optimiser of a process imports

    from striate.cli import show  # noqa: F401 - once, for every fork
    from striate.engine.vault import Vault
    from striate.models import notes  # noqa: F401
    from striate.runs import manifest, resume, train  # noqa: F401

    with open(flag, "r+b") as file:
        shared = mmap.mmap(file.fileno(), 1)
    real = Vault.write

    def write(*words, **options):
        shared[0] = 1
        try:
            return real(*words, **options)
        finally:
            shared[0] = 0

    Vault.write = write
    # Drawn from what is compared, by a library that takes longer than the run; and
    # what git says, which takes as long.
    train.write_report = lambda run: None
    manifest.git_commit = lambda: None
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
            continue
        pid = os.fork()
        if not pid:
            _be_striate(order, said)
        print(pid, flush=True)


def _be_striate(words: list[str], said: str) -> None:
    code = 99
    try:
        from striate.cli.main import main

        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = main(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(*sys.argv[1:])
