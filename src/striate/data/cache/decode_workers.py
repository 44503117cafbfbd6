"""Worker processes that decode images; they end with their parent.

Threads decode as fast, because decoders release the interpreter lock. Processes are for
untrusted images, which may crash or hang a decoder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import WorkerError
from striate.data.decode.decode import without_pillow_warnings
from striate.data.sources.source import Skipped

TIMEOUT = (
    120.0  # seconds; longer than any batch takes unless an image hangs its decoder
)
_DIED = "a worker process that decodes images died or was killed"
_DIED_FIX = (
    "if memory ran out, use fewer --workers; --workers 0 decodes without processes; "
    "the log of the system names processes that it killed"
)
_HUNG_FIX = "run `striate data check` on the images, or leave out the newest"

# Plain arrays: tensors would use shared memory, which a killed process leaves behind.
Sent = tuple[np.ndarray, np.ndarray, tuple[Skipped, ...]]


@dataclass(frozen=True)
class DecodedBatch:
    """A batch of decoded images.

    Args:
        pixels: (n, H, W, C) uint8.
        index: (n,) image numbers; a lost image is replaced by another of the batch.
        lost: Files that could not be read.
    """

    pixels: Tensor
    index: Tensor
    lost: tuple[Skipped, ...] = ()


class BatchDecoder(Protocol):
    """Decodes the images of a batch by their numbers; sent to every process."""

    @property
    def workers(self) -> int:
        """Return the number of processes."""
        ...

    def decode_batch(self, index: Tensor) -> DecodedBatch:
        """Decode those images of a batch that can be decoded."""
        ...


_decoder: BatchDecoder | None = None  # set once when a worker starts


def decode_with_workers(
    pixels: BatchDecoder,
    indices: Iterable[Tensor],
    *,
    timeout: float = TIMEOUT,
    start: str | None = None,
) -> Iterator[DecodedBatch]:
    """Yield batches in order, decoded by `pixels.workers` processes.

    Args:
        pixels: Decodes the images.
        indices: Image numbers of each batch.
        timeout: Seconds after which a missing batch counts as hung.
        start: Start method of processes (`fork`, `spawn`, …); None: the default.

    Raises:
        WorkerError: A process died, or hung.
    """
    context = multiprocessing.get_context(start)
    waiting: deque[Future[Sent]] = deque()
    pool = ProcessPoolExecutor(pixels.workers, context, _begin, (pixels,))

    def take() -> DecodedBatch:
        rows, index, lost = waiting.popleft().result(timeout)
        return DecodedBatch(torch.from_numpy(rows), torch.from_numpy(index), lost)

    complete = False
    try:
        for index in indices:
            waiting.append(pool.submit(_decode, index.numpy()))
            if len(waiting) > 2 * pixels.workers:
                yield take()
        while waiting:
            yield take()
        complete = True
    except BrokenProcessPool as error:
        raise WorkerError(_DIED, where="--workers", fix=_DIED_FIX) from error
    except TimeoutError as error:
        what = f"no batch was decoded within {timeout:.0f} s: a decoder hangs"
        raise WorkerError(what, where="--workers", fix=_HUNG_FIX) from error
    finally:
        for future in waiting:
            future.cancel()
        _stop(pool, at_once=not complete)


def _begin(pixels: BatchDecoder) -> None:
    global _decoder
    _decoder = pixels
    # Ctrl-C in a terminal reaches the whole group; the parent decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # the processes are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process with its parent, even where that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode(index: np.ndarray) -> Sent:
    assert _decoder is not None  # noqa: S101 - `_begin` has set it
    with without_pillow_warnings():
        batch = _decoder.decode_batch(torch.from_numpy(index))
    return batch.pixels.numpy(), batch.index.numpy(), batch.lost


def _stop(pool: ProcessPoolExecutor, at_once: bool) -> None:
    """Stop the processes, after their work or at once."""
    # All of them: one that dies at work may hold a lock that the others wait for.
    for process in list((pool._processes or {}).values()) if at_once else ():
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
