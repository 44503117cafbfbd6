"""All-reduce among the ranks of one machine through shared memory.

gloo uses the network even on one machine: 1.6 ms a message on two cores, 80 µs here
(docs/notebook/distributed.md). Every rank writes its numbers into its own slot, all
wait for each other, and each adds up the slots in the order of the ranks, so that all
get the same bits.

Memory and sockets have no name in a file system: nothing can be left behind.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor
from torch._C._distributed_c10d import Store

from striate.core.cpu_count import cpu_count
from striate.engine.distributed.rank_info import RankInfo

SLOT_BYTES = 1 << 30  # virtual; only bytes that are written take memory
_LOOK = 1.0  # seconds after which a wait looks whether there was a fault
# Seconds of asking again and again before a wait sleeps. The other rank is mostly here
# within 1 ms, and a processor that has gone to sleep takes a while to wake.
_SPIN_SECONDS = 2e-3
_CPUS = cpu_count()
_ADDRESS = "beside"
Check = Callable[[], None]


class SharedMemoryReducer:
    """All-reduce through shared memory among the ranks of one machine.

    Two slots for each rank, in turn: a rank that has finished a sum may write the next
    numbers while others still read, and no rank can be two sums ahead.

    Args:
        memory: Shared memory of all slots.
        rank_info: Rank and world size of this process.
        links: Sockets of rank 0 to all others, or of this rank to rank 0.
    """

    def __init__(
        self, memory: mmap.mmap, rank_info: RankInfo, links: Sequence[socket.socket]
    ) -> None:
        self._memory = memory
        self._rank_info = rank_info
        self._links = links
        self._turn = 0

    def accepts(self, tensor: Tensor) -> bool:
        """Return whether a tensor can be summed in shared memory."""
        here = tensor.device.type == "cpu" and tensor.is_contiguous()
        return here and 0 < tensor.nbytes <= SLOT_BYTES

    def all_reduce(self, tensor: Tensor, check: Check) -> None:
        """Sum the ranks' tensors in place.

        Args:
            tensor: Of equal shape and dtype on all ranks; `accepts` must be true.
            check: Called each second of waiting; raises if there was a fault.

        Raises:
            OSError: A rank has gone.
        """
        self._turn ^= 1
        self._slot(self._rank_info.rank, tensor).copy_(tensor)
        self._barrier(check)
        torch.add(self._slot(0, tensor), self._slot(1, tensor), out=tensor)
        for rank in range(2, self._rank_info.world_size):
            tensor.add_(self._slot(rank, tensor))

    def close(self) -> None:
        """Close the sockets, which ends the wait of other ranks."""
        for link in self._links:
            link.close()

    def _slot(self, rank: int, tensor: Tensor) -> Tensor:
        first = (2 * rank + self._turn) * SLOT_BYTES
        count, dtype = tensor.numel(), tensor.dtype
        slot = torch.frombuffer(self._memory, dtype=dtype, count=count, offset=first)
        return slot.view(tensor.shape)

    def _barrier(self, check: Check) -> None:
        """Wait until all ranks have written; rank 0 collects and sends the signals."""
        # Where ranks share a processor, who stays awake keeps it from another.
        spin = self._rank_info.local_world_size <= _CPUS
        if not self._rank_info.is_main:
            self._links[0].send(b".")
        for link in self._links:
            if not (spin and _poll(link)):
                _wait_for(link, check)
        if self._rank_info.is_main:
            for link in self._links:
                link.send(b".")


def _poll(link: socket.socket) -> bool:
    """Poll for a rank's byte without sleeping."""
    end = time.perf_counter() + _SPIN_SECONDS
    link.setblocking(False)
    try:
        while time.perf_counter() < end:
            with suppress(BlockingIOError):
                return _read_byte(link)
    finally:
        link.settimeout(_LOOK)
    return False


def _wait_for(link: socket.socket, check: Check) -> None:
    """Sleep until a rank's byte arrives."""
    while True:
        try:
            _read_byte(link)
        except TimeoutError:
            check()
            continue
        return


def _read_byte(link: socket.socket) -> bool:
    if not link.recv(1):
        raise ConnectionError("a rank of this machine has gone")
    return True


def connect_local_ranks(
    rank_info: RankInfo, store: Store, all_agree: Callable[[bool], bool], check: Check
) -> SharedMemoryReducer | None:
    """Connect the ranks of one machine by shared memory; None if that is impossible.

    Args:
        rank_info: Rank and world size of this process.
        store: Key-value store of this start.
        all_agree: Returns whether the flag is true on every rank.
        check: As for `SharedMemoryReducer.all_reduce`.
    """
    all_local = 1 < rank_info.world_size == rank_info.local_world_size
    if sys.platform != "linux" or not all_local:
        return None
    open_links = _accept_links if rank_info.is_main else _connect_link
    links = open_links(rank_info, store, all_agree)
    if not links:
        return None
    memory: mmap.mmap | None
    try:
        memory = (
            _create_memory(links, rank_info)
            if rank_info.is_main
            else _receive_memory(links[0], check)
        )
    except OSError:
        memory = None
    if all_agree(memory is not None) and memory is not None:
        return SharedMemoryReducer(memory, rank_info, links)
    for link in links:
        link.close()
    return None


def _address(name: str) -> str:
    """Return an abstract Linux socket address, which has no file."""
    return f"\0striate-{name}"


def _accept_links(
    rank_info: RankInfo, store: Store, all_agree: Callable[[bool], bool]
) -> list[socket.socket]:
    """Accept the connections of the other ranks."""
    name = secrets.token_hex(16)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(_address(name))
            listener.listen(rank_info.world_size)
        except OSError:
            name = ""
        store.set(_ADDRESS, name)
        if not all_agree(bool(name)):
            return []
        # They have said that they are in the queue: nothing is waited for.
        links = [listener.accept()[0] for _ in range(1, rank_info.world_size)]
    for link in links:
        link.settimeout(_LOOK)
    return links


def _connect_link(
    rank_info: RankInfo, store: Store, all_agree: Callable[[bool], bool]
) -> list[socket.socket]:
    """Connect to rank 0."""
    name = store.get(_ADDRESS).decode()
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(_address(name))
    except OSError:
        name = ""
    if not all_agree(bool(name)):
        link.close()
        return []
    link.settimeout(_LOOK)
    return [link]


def _create_memory(links: Sequence[socket.socket], rank_info: RankInfo) -> mmap.mmap:
    """Create the memory and send it to the other ranks; or nothing, if it fails."""
    files = []
    try:
        files.append(os.memfd_create("striate"))
        os.ftruncate(files[0], 2 * rank_info.world_size * SLOT_BYTES)
        memory = mmap.mmap(files[0], 0)
    except OSError:
        for link in links:
            link.send(b".")
        raise
    else:
        for link in links:
            socket.send_fds(link, [b"."], files)
        return memory
    finally:
        for file in files:
            os.close(file)


def _receive_memory(link: socket.socket, check: Check) -> mmap.mmap:
    """Receive the memory that rank 0 sends."""
    while True:
        try:
            _, files, _, _ = socket.recv_fds(link, 1, 1)
        except TimeoutError:
            check()
            continue
        if not files:
            raise ConnectionError("rank 0 has no memory to share")
        try:
            return mmap.mmap(files[0], 0)
        finally:
            os.close(files[0])
