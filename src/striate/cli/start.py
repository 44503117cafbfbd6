"""Start of the program `striate`: Ctrl-C ends it in one line even while it loads."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

STOPPED = 130  # exit code after Ctrl-C


def start() -> int:
    """Run the command line of this process, and return its exit code."""
    try:
        _use_utf8()
        from striate.cli.main import main  # takes a moment, in which Ctrl-C is usual

        _survive_closed_pipe()
        return main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode if file names are read as ASCII.

    In such a process (`LC_ALL=C` with `PYTHONUTF8=0`), the class names of folders are
    not those in the files of a run, which are in UTF-8.
    """
    if sys.getfilesystemencoding() == "ascii":
        environment = {**os.environ, "PYTHONUTF8": "1"}
        command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, command, environment)  # noqa: S606 - itself


class _Pipe(io.FileIO):
    """Output that discards further text if its reader has closed (`| head`).

    A long training goes on: its results are in the run folder.
    """

    def write(self, text: object, /) -> int:
        """Write bytes; after the reader has closed, discard them."""
        try:
            return super().write(text)  # type: ignore[arg-type]
        except BrokenPipeError:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)
            return super().write(text)  # type: ignore[arg-type]


def _survive_closed_pipe() -> None:
    sys.stdout = _replaced(sys.stdout)
    sys.stderr = _replaced(sys.stderr)


def _replaced(stream: TextIO) -> TextIO:
    """Return a stream that survives a closed pipe, or the stream of a terminal."""
    if not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        return stream
    stream.flush()
    raw = _Pipe(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
