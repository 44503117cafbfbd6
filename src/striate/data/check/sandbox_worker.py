"""Worker process that decodes images with resource limits; started by `sandbox`.

It reads requests from standard input: a kind, a length, and a path or the bytes of a
file. It writes lengths, JSON and raw pixels to standard output; the main process never
executes them. Memory and processor time are limited, and it cannot write to any file.
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

from striate.data.check.image_stats import (
    ExaminedImage,
    UnusableFile,
    examine_file,
    preview_file,
)
from striate.data.decode.decode import without_pillow_warnings

MEMORY = 4 << 30  # bytes; 100 megapixels with transparency need 2.3 GiB
SECONDS = 20  # processor time for one image; the largest allowed needs 5 s
REQUEST_HEAD = struct.Struct("<BI")  # of a request: kind, length
PATH, PAYLOAD = 0, 1
LENGTH = struct.Struct("<I")  # of a result: length of the JSON, length of the pixels
READY = b"striate\n"

Examine = Callable[[Path | bytes], ExaminedImage | UnusableFile]


def serve(examine: Examine, requests: BinaryIO, answers: BinaryIO) -> None:
    """Examine the image of each request until the input ends."""
    answers.write(READY)
    answers.flush()
    with without_pillow_warnings():
        while len(head := requests.read(REQUEST_HEAD.size)) == REQUEST_HEAD.size:
            kind, length = REQUEST_HEAD.unpack(head)
            body = requests.read(length)
            if len(body) < length:
                return  # the parent ended in the middle of it
            _grant_seconds()
            file = body if kind == PAYLOAD else Path(os.fsdecode(body))
            answers.write(pack_result(examine(file)))
            answers.flush()


def pack_result(result: ExaminedImage | UnusableFile) -> bytes:
    """Serialize a result as lengths, JSON, and pixel bytes."""
    blob = b""
    if isinstance(result, ExaminedImage):
        fields = {
            "stats": asdict(result.stats),
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
    """Set the resource limits of this process, if the system supports them."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        for kind, limit in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            limit = limit if hard < 0 else min(limit, hard)
            resource.setrlimit(kind, (limit, hard))


def _grant_seconds() -> None:
    """Limit the processor time for the next image."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + SECONDS + 1
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def worker_main(args: Sequence[str]) -> None:
    """Run the worker process: examine images; for argument `preview`, make previews."""
    confine()
    task = preview_file if args == ["preview"] else examine_file
    serve(task, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    worker_main(sys.argv[1:])
