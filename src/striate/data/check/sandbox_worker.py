"""A process that decodes images and may die of one: run by `disposable`, never alone.

It reads requests from standard input, each a kind, a length and a path, or the bytes of
a file that lies elsewhere, and answers on standard output with lengths, JSON and raw
pixels: nothing that either side would execute. The system holds its memory, processor
time and files; it cannot write to any file.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from striate.data.check.measure import Examined, Refused, examine_file, preview_file
from striate.data.decode.decode import without_pillow_warnings

MEMORY = 4 << 30  # bytes; 100 megapixels with transparency need 2.3 GiB
SECONDS = 20  # of processor time for one image; the largest allowed needs 5
HEAD = struct.Struct("<BI")  # of a request: its kind, its length
PATH, PAYLOAD = 0, 1
LENGTH = struct.Struct("<I")  # of an answer: of its text, and of its pixels
READY = b"striate\n"

Examine = Callable[[Path | bytes], Examined | Refused]


def serve(examine: Examine, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are none."""
    answers.write(READY)
    answers.flush()
    with without_pillow_warnings():
        while len(head := requests.read(HEAD.size)) == HEAD.size:
            kind, length = HEAD.unpack(head)
            said = requests.read(length)
            if len(said) < length:
                return  # the parent has gone in the middle of it
            _grant_seconds()
            file = said if kind == PAYLOAD else Path(os.fsdecode(said))
            answers.write(packed(examine(file)))
            answers.flush()


def packed(result: Examined | Refused) -> bytes:
    """Write a result as a length, JSON, and the views' bytes."""
    blob = b""
    if isinstance(result, Examined):
        fields = {
            "facts": asdict(result.facts),
            "nature": asdict(result.nature) if result.nature else None,
            "view": result.view.shape,
            "sha256": result.sha256,
            "size": result.size,
        }
        blob = result.view.tobytes() + result.thumb.tobytes()
    else:
        fields = asdict(result)
    text = json.dumps(fields).encode()
    return LENGTH.pack(len(text)) + LENGTH.pack(len(blob)) + text + blob


def confine() -> None:
    """Ask the system to hold this process to its limits, where it can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        for kind, most in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            most = most if hard < 0 else min(most, hard)
            resource.setrlimit(kind, (most, hard))


def _grant_seconds() -> None:
    """Let the system end this process when one image takes too long to decode."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + SECONDS + 1
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def main(words: Sequence[str]) -> None:
    """Serve the parent: measure each image, or make a small one in color of it."""
    confine()
    task = preview_file if words == ["preview"] else examine_file
    serve(task, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main(sys.argv[1:])
