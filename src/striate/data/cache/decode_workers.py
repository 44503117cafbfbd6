"""Processes that decode, none of which outlives its parent or fails without a name.

Threads decode as fast, because decoders release the interpreter lock; processes are for
images that are not trusted not to crash or hang a decoder.
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
from striate.data.decode.decode import unwarned
from striate.data.sources.source import Skipped

TIMEOUT = 120.0  # seconds; no batch takes so long unless an image hangs its decoder
_DIED = "a process that decodes images died or was killed"
_DIED_FIX = (
    "if memory ran out use fewer --workers; --workers 0 decodes without processes; the "
    "system's log says who was killed"
)
_HUNG_FIX = "run `striate data check` on the images, or leave the newest out"

# As plain arrays: tensors would travel through shared memory, which a killed process
# leaves behind.
Sent = tuple[np.ndarray, np.ndarray, tuple[Skipped, ...]]


@dataclass(frozen=True)
class Gathered:
    """A batch as it was decoded.

    Args:
        pixels: (n, H, W, C) uint8.
        index: (n,) which images they are; a lost one's place has another's.
        lost: Files that could not be used now.
    """

    pixels: Tensor
    index: Tensor
    lost: tuple[Skipped, ...] = ()


class BatchDecoder(Protocol):
    """What the processes run: it decodes the images of a batch by their numbers."""

    @property
    def workers(self) -> int:
        """Return the number of processes."""
        ...

    def attempt(self, index: Tensor) -> Gathered:
        """Decode the images of a batch as far as they can be decoded."""
        ...


_mine: BatchDecoder | None = None  # what a worker decodes; set once when it starts


def decoded_by_workers(
    pixels: BatchDecoder,
    indices: Iterable[Tensor],
    *,
    timeout: float = TIMEOUT,
    start: str | None = None,
) -> Iterator[Gathered]:
    """Yield batches in order, decoded by `pixels.workers` processes.

    Args:
        pixels: What is decoded.
        indices: The images of each batch.
        timeout: Seconds after which a batch that has not come counts as hung.
        start: How processes begin (`fork`, `spawn`, …); the system's way where None.

    Raises:
        WorkerError: A process died, or hung.
    """
    context = multiprocessing.get_context(start)
    waiting: deque[Future[Sent]] = deque()
    pool = ProcessPoolExecutor(pixels.workers, context, _begin, (pixels,))

    def take() -> Gathered:
        rows, index, lost = waiting.popleft().result(timeout)
        return Gathered(torch.from_numpy(rows), torch.from_numpy(index), lost)

    whole = False
    try:
        for index in indices:
            waiting.append(pool.submit(_decode, index.numpy()))
            if len(waiting) > 2 * pixels.workers:
                yield take()
        while waiting:
            yield take()
        whole = True
    except BrokenProcessPool as error:
        raise WorkerError(_DIED, where="--workers", fix=_DIED_FIX) from error
    except TimeoutError as error:
        what = f"no batch was decoded within {timeout:.0f} s: a decoder hangs"
        raise WorkerError(what, where="--workers", fix=_HUNG_FIX) from error
    finally:
        for future in waiting:
            future.cancel()
        _end(pool, at_once=not whole)


def _begin(pixels: BatchDecoder) -> None:
    global _mine
    _mine = pixels
    # Ctrl-C in a terminal reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # the processes are the parallelizm
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End with the parent, even where it was killed and could not say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode(index: np.ndarray) -> Sent:
    assert _mine is not None  # noqa: S101 - `_begin` has set it
    with unwarned():
        gathered = _mine.attempt(torch.from_numpy(index))
    return gathered.pixels.numpy(), gathered.index.numpy(), gathered.lost


def _end(pool: ProcessPoolExecutor, at_once: bool) -> None:
    """Stop the processes: when their work is done, or in the middle of it."""
    # All of them: one that dies in the middle may hold a lock that the others wait for.
    for process in list((pool._processes or {}).values()) if at_once else ():
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
