"""Worker processes that decode images, and end when the main process ends.

Threads decode as fast, because decoders release the global interpreter lock (GIL).
Processes are for untrusted images, which may crash or hang a decoder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import WorkerError
from striate.core.read_ahead import results_in_order
from striate.data.decode.decode import without_pillow_warnings
from striate.data.sources.source import Skipped

TIMEOUT = 120.0  # seconds; no batch takes longer unless an image hangs its decoder
_DIED = "a worker process that decodes images died or was killed"
_DIED_FIX = (
    "if memory ran out, use fewer --workers; --workers 0 decodes without processes; "
    "the system log lists the processes that the system killed"
)
_HUNG_FIX = "run `striate data check` on the images, or remove the newest images"

# Plain arrays: tensors would use shared memory, which a killed process leaves behind.
Sent = tuple[np.ndarray, np.ndarray, tuple[Skipped, ...]]


@dataclass(frozen=True)
class DecodedBatch:
    """Decoded images of a batch."""

    pixels: Tensor  # (n, H, W, C) uint8
    # (n,) image indices; an unreadable image is replaced by another image
    index: Tensor
    lost: tuple[Skipped, ...] = ()  # files that could not be read


class BatchDecoder(Protocol):
    """Interface of objects that decode a batch of images in worker processes."""

    @property
    def workers(self) -> int:
        """Return the number of worker processes."""
        ...

    def decode_batch(self, index: Tensor) -> DecodedBatch:
        """Decode a batch of images; replace unreadable images by readable images."""
        ...


_decoder: BatchDecoder | None = None  # set once when a worker starts


def decode_with_workers(
    pixels: BatchDecoder,
    indices: Iterable[Tensor],  # image indices of each batch
    *,
    timeout: float = TIMEOUT,
    start: str | None = None,  # `fork`, `spawn`, …; None: Python's default
) -> Iterator[DecodedBatch]:
    """Yield decoded batches in order, using `pixels.workers` worker processes.

    Raises:
        WorkerError: A process died, or a batch took longer than `timeout`.
    """
    context = multiprocessing.get_context(start)
    pool = ProcessPoolExecutor(pixels.workers, context, _begin, (pixels,))
    calls = (partial(_decode, index.numpy()) for index in indices)
    results = results_in_order(pool, calls, 2 * pixels.workers, timeout)
    complete = False
    try:
        for rows, index, lost in results:
            yield DecodedBatch(torch.from_numpy(rows), torch.from_numpy(index), lost)
        complete = True
    except BrokenProcessPool as error:
        raise WorkerError(_DIED, where="--workers", fix=_DIED_FIX) from error
    except TimeoutError as error:
        what = f"no batch was decoded within {timeout:.0f} s: a decoder hangs"
        raise WorkerError(what, where="--workers", fix=_HUNG_FIX) from error
    finally:
        results.close()
        # All of them: one that dies at work may hold a lock that the others wait for.
        for process in list((pool._processes or {}).values()) if not complete else ():
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(pixels: BatchDecoder) -> None:
    global _decoder
    _decoder = pixels
    # Ctrl-C in a terminal reaches the whole group; the parent decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # the processes are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker process when its parent ends, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode(index: np.ndarray) -> Sent:
    assert _decoder is not None  # noqa: S101 - `_begin` has set it
    with without_pillow_warnings():
        batch = _decoder.decode_batch(torch.from_numpy(index))
    return batch.pixels.numpy(), batch.index.numpy(), batch.lost
