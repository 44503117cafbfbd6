"""RankGroup: all_reduce, all_gather_object, broadcast and barrier over all ranks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store

from striate.core.errors import InterruptedRunError, NonFiniteError, RankError
from striate.engine.distributed.heartbeat import WAITING, Heartbeat
from striate.engine.distributed.rank_info import RankInfo
from striate.engine.distributed.rendezvous import JOIN_TIMEOUT, open_store, rendezvous
from striate.engine.distributed.shared_memory import (
    SharedMemoryReducer,
    connect_local_ranks,
)
from striate.engine.distributed.watchdog import PATIENCE, RESUME_HINT, Watchdog

_SLICE = timedelta(seconds=1)  # between two looks for a fault while waiting
# The watchdog decides how long is too long; a slow rank is no fault.
_NEVER = timedelta(days=30)
_PREFIX = "run"


class RankGroup:
    """The ranks of a distributed run, seen from one of them.

    All ranks must call every method but `store_set` and `store_get`, in the same
    order. A method returns the same on all of them.

    Args:
        rank_info: Rank and world size of this process.
        watchdog: Finds out why an exchange does not end.
        heartbeat: Records when this rank waits.
        device: Device of large sums.
        store: Key-value store; with torchrun it outlives the processes.

    Attributes:
        shared_memory: Sums through shared memory, if all ranks are on this machine.
    """

    def __init__(
        self,
        rank_info: RankInfo,
        watchdog: Watchdog,
        heartbeat: Heartbeat,
        device: torch.device,
        store: Store,
    ) -> None:
        self.rank_info = rank_info
        self.heartbeat = heartbeat
        self.device = device
        self.exchanging = True  # False while a rank traces a bad layer by itself
        self.norms_synced = False  # batch norms exchange their statistics
        self.counts_images = True  # False while a rank runs blank images
        self.shared_memory: SharedMemoryReducer | None = None
        self._watchdog = watchdog
        self._store = store

    @property
    def world_size(self) -> int:
        """Return the number of ranks."""
        return self.rank_info.world_size

    @property
    def is_main(self) -> bool:
        """Return whether this is rank 0, which prints and writes for all."""
        return self.rank_info.is_main

    def all_reduce(self, tensor: Tensor, activity: str) -> None:
        """Sum the ranks' tensors in place.

        Args:
            tensor: Of equal shape on all ranks, on `device` or the CPU.
            activity: What is exchanged, for messages.

        Raises:
            RankError: A rank died, hung or failed.
        """
        if self.shared_memory is not None and self.shared_memory.accepts(tensor):
            reducer = self.shared_memory
            self._wait(
                lambda: reducer.all_reduce(tensor, self._watchdog.check), activity
            )
        else:
            self._wait(lambda: dist.all_reduce(tensor, async_op=True), activity)

    def _wait(self, begin: Callable[[], dist.Work | None], activity: str) -> None:
        if self.world_size == 1:
            return
        self._watchdog.check()
        with self.heartbeat.activity(WAITING, activity):
            try:
                work = begin()
                while work is not None and not _ended(work):
                    self._watchdog.check()
            except (RuntimeError, OSError) as error:
                raise self._watchdog.cause_of(error) from error

    def connect_local_ranks(self, store: Store) -> None:
        """Connect the ranks by shared memory, if all are on this machine.

        Args:
            store: Key-value store of this start.

        Raises:
            RankError: A rank died, hung or failed.
        """
        activity = "the ranks of this machine to connect"

        def all_agree(flag: bool) -> bool:
            return all(self.all_gather_object(flag, activity))

        def connect() -> None:
            self.shared_memory = connect_local_ranks(
                self.rank_info, store, all_agree, self._watchdog.check
            )

        self._wait(connect, activity)

    def all_gather_object(self, value: Any, activity: str) -> list[Any]:
        """Return the values of all ranks in their order, exchanged as JSON."""
        payload = json.dumps(value).encode()
        sizes = torch.zeros(self.world_size, dtype=torch.int64)
        sizes[self.rank_info.rank] = len(payload)
        self.all_reduce(sizes, activity)
        buffer = torch.zeros(self.world_size, int(sizes.max()), dtype=torch.uint8)
        buffer[self.rank_info.rank, : len(payload)] = _as_tensor(payload)
        self.all_reduce(buffer, activity)
        rows = zip(buffer, sizes.tolist(), strict=True)
        return [json.loads(bytes(row[:size].numpy())) for row, size in rows]

    def broadcast(self, payload: bytes, activity: str) -> bytes:
        """Return the bytes of rank 0 on all ranks."""
        size = torch.tensor([len(payload) if self.is_main else 0])
        self.all_reduce(size, activity)
        buffer = torch.zeros(int(size), dtype=torch.uint8)
        if self.is_main:
            buffer[:] = _as_tensor(payload)
        self._wait(lambda: dist.broadcast(buffer, 0, async_op=True), activity)
        return bytes(buffer.numpy())

    def barrier(self, activity: str) -> None:
        """Wait until all ranks have called this."""
        self.all_reduce(torch.zeros(1), activity)

    def max_over_ranks(self, number: int, activity: str) -> int:
        """Return the largest of the ranks' numbers."""
        return max(map(int, self.all_gather_object(number, activity)))

    def mismatch_error(self, position: str) -> RankError:
        """Return the error for ranks that are at different steps."""
        positions = self._watchdog.positions(position)
        what = f"the ranks are at different steps: {positions}"
        return RankError(what, fix=RESUME_HINT)

    def store_set(self, key: str, text: str) -> None:
        """Store a text for the processes of a later restart by torchrun."""
        self._store.set(f"{_PREFIX}/{key}", text)

    def store_get(self, key: str) -> str:
        """Return a text that `store_set` stored before this restart, or ''."""
        name = f"{_PREFIX}/{key}"
        if not self.rank_info.attempt or not self._store.check([name]):
            return ""
        return str(self._store.get(name).decode())

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Context manager: the first rank of each machine runs the block first."""
        local_main = self.rank_info.local_rank == 0
        if not local_main:
            self.barrier("the first process of the machine to read the images")
        yield
        if local_main:
            self.barrier("the others to begin to read the images")

    @contextmanager
    def without_exchange(self) -> Iterator[None]:
        """Context manager: batch norms exchange nothing."""
        self.exchanging = False
        try:
            yield
        finally:
            self.exchanging = True

    @contextmanager
    def blank_images(self) -> Iterator[None]:
        """Context manager: the images of this rank have weight 0."""
        self.counts_images = False
        try:
            yield
        finally:
            self.counts_images = True


def _ended(work: dist.Work) -> bool:
    """Wait a second and return whether the work has ended; a timeout is no failure."""
    try:
        work.wait(_SLICE)
    except RuntimeError:
        if work.is_completed():
            raise
        return False
    return True


def _as_tensor(payload: bytes) -> Tensor:
    return torch.frombuffer(bytearray(payload), dtype=torch.uint8)


@contextmanager
def process_group(rank_info: RankInfo, device: torch.device) -> Iterator[RankGroup]:
    """Context manager: join the ranks of the run, and report an error to them.

    Raises:
        RankError: A rank did not start, or died, hung or failed.
    """
    store = open_store(rank_info)
    name = rendezvous(store, rank_info)
    _init_process_group(rank_info, PrefixStore(name, store), device)
    heartbeat = Heartbeat(PATIENCE)
    connection = open_store(rank_info, PATIENCE, second=True)
    watchdog = Watchdog(
        PrefixStore(f"{name}/watch", connection),
        rank_info.rank,
        rank_info.world_size,
        heartbeat,
        PATIENCE,
    )
    group = RankGroup(rank_info, watchdog, heartbeat, device, store)
    watchdog.start()
    try:
        group.connect_local_ranks(PrefixStore(name, store))
        yield group
        group.barrier("the others to be done")
    except BaseException as error:
        _leave(watchdog, error)
        raise
    watchdog.stop()
    if group.shared_memory is not None:
        group.shared_memory.close()
    dist.destroy_process_group()


def _leave(watchdog: Watchdog, error: BaseException) -> None:
    # All ranks raise these together.
    if not isinstance(error, InterruptedRunError | NonFiniteError | RankError):
        what = getattr(error, "what", None) or repr(error)
        code = getattr(error, "exit_code", 1)
        watchdog.report(f"rank {watchdog._rank} stopped: {what}", exit_code=code)
    watchdog.stop()


def _init_process_group(
    rank_info: RankInfo, store: Store, device: torch.device
) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend,
            timeout=timedelta(seconds=JOIN_TIMEOUT),
            store=store,
            rank=rank_info.rank,
            world_size=rank_info.world_size,
        )
    except (RuntimeError, ValueError) as error:
        what = "the processes of the run cannot reach each other"
        where = str(error).splitlines()[0]
        fix = "set GLOO_SOCKET_IFNAME to the network interface between the machines"
        raise RankError(what, where=where, fix=fix) from error
    group = dist.distributed_c10d._get_default_group()
    for backend_device in {torch.device("cpu"), torch.device(device.type)}:
        group._get_backend(backend_device)._set_default_timeout(_NEVER)
