"""Sums among the ranks of one machine: memory they share, and a byte when it is full.

gloo sends numbers through the network even to a neighbor: 1.6 ms a message on two
cores, 80 µs here (docs/notebook/distributed.md). Every rank writes its
numbers into a slot of its own, all wait for each other, and each adds up the slots in
the order of the ranks, so that all get the same bits.

Neither memory nor sockets have a name in a file system: nothing can be left behind.
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

SLOT_BYTES = 1 << 30  # bytes; only those that are written to take memory
_LOOK = 1.0  # seconds after which a wait looks whether there was a fault
# Seconds of asking again and again before a wait sleeps. The other rank is mostly here
# within 1 ms, and a processor that has gone to sleep takes a while to wake.
_AWAKE = 2e-3
_ENOUGH = cpu_count()
_ADDRESS = "beside"
Check = Callable[[], None]


class SharedMemoryReducer:
    """The ranks of one machine, side by side.

    Two slots a rank, in turn: who is through with a sum may write the next one's
    numbers while others still read, and nobody can be two sums ahead.

    Args:
        memory: Of all slots, shared.
        place: This rank's.
        links: Of rank 0 to every other, of the others to rank 0.
    """

    def __init__(
        self, memory: mmap.mmap, place: RankInfo, links: Sequence[socket.socket]
    ) -> None:
        self._memory = memory
        self._place = place
        self._links = links
        self._turn = 0

    def takes(self, numbers: Tensor) -> bool:
        """Say whether a tensor can be summed here."""
        here = numbers.device.type == "cpu" and numbers.is_contiguous()
        return here and 0 < numbers.nbytes <= SLOT_BYTES

    def total(self, numbers: Tensor, check: Check) -> None:
        """Add up the ranks' tensors, in place.

        Args:
            numbers: Of one shape and type on all ranks, as `takes` allows.
            check: Asked each second of waiting; raises where there was a fault.

        Raises:
            OSError: A rank has gone.
        """
        self._turn ^= 1
        self._slot(self._place.rank, numbers).copy_(numbers)
        self._meet(check)
        torch.add(self._slot(0, numbers), self._slot(1, numbers), out=numbers)
        for rank in range(2, self._place.world):
            numbers.add_(self._slot(rank, numbers))

    def close(self) -> None:
        """Take leave; who still waits for this rank is told by the system."""
        for link in self._links:
            link.close()

    def _slot(self, rank: int, like: Tensor) -> Tensor:
        first = (2 * rank + self._turn) * SLOT_BYTES
        count, dtype = like.numel(), like.dtype
        held = torch.frombuffer(self._memory, dtype=dtype, count=count, offset=first)
        return held.view(like.shape)

    def _meet(self, check: Check) -> None:
        """Wait until all have written: they tell rank 0, and it tells them."""
        # Where ranks share a processor, who stays awake keeps it from another.
        awake = self._place.local_world <= _ENOUGH
        if not self._place.first:
            self._links[0].send(b".")
        for link in self._links:
            if not (awake and _heard_at_once(link)):
                _hear(link, check)
        if self._place.first:
            for link in self._links:
                link.send(b".")


def _heard_at_once(link: socket.socket) -> bool:
    """Ask for a rank's byte without sleeping."""
    end = time.perf_counter() + _AWAKE
    link.setblocking(False)
    try:
        while time.perf_counter() < end:
            with suppress(BlockingIOError):
                return _is_here(link)
    finally:
        link.settimeout(_LOOK)
    return False


def _hear(link: socket.socket, check: Check) -> None:
    """Sleep until a rank's byte comes."""
    while True:
        try:
            _is_here(link)
        except TimeoutError:
            check()
            continue
        return


def _is_here(link: socket.socket) -> bool:
    if not link.recv(1):
        raise ConnectionError("a rank of this machine has gone")
    return True


def connect_local_ranks(
    place: RankInfo, store: Store, all_say: Callable[[bool], bool], check: Check
) -> SharedMemoryReducer | None:
    """Bring the ranks of one machine together; None where that cannot be.

    Args:
        place: This rank's.
        store: Of this start.
        all_say: Returns whether every rank says so.
        check: As for `SharedMemoryReducer.total`.
    """
    together = 1 < place.world == place.local_world
    if sys.platform != "linux" or not together:
        return None
    open_links = _receive if place.first else _visit
    links = open_links(place, store, all_say)
    if not links:
        return None
    memory: mmap.mmap | None
    try:
        memory = _made_for(links, place) if place.first else _given(links[0], check)
    except OSError:
        memory = None
    if all_say(memory is not None) and memory is not None:
        return SharedMemoryReducer(memory, place, links)
    for link in links:
        link.close()
    return None


def _address(name: str) -> str:
    """Return an address in Linux's own space: no file stands for it."""
    return f"\0striate-{name}"


def _receive(
    place: RankInfo, store: Store, all_say: Callable[[bool], bool]
) -> list[socket.socket]:
    """Open a door and let the other ranks in."""
    name = secrets.token_hex(16)
    with socket.socket(socket.AF_UNIX) as door:
        try:
            door.bind(_address(name))
            door.listen(place.world)
        except OSError:
            name = ""
        store.set(_ADDRESS, name)
        if not all_say(bool(name)):
            return []
        # They have said that they are in the queue: nothing is waited for.
        links = [door.accept()[0] for _ in range(1, place.world)]
    for link in links:
        link.settimeout(_LOOK)
    return links


def _visit(
    place: RankInfo, store: Store, all_say: Callable[[bool], bool]
) -> list[socket.socket]:
    """Go to rank 0's door."""
    name = store.get(_ADDRESS).decode()
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(_address(name))
    except OSError:
        name = ""
    if not all_say(bool(name)):
        link.close()
        return []
    link.settimeout(_LOOK)
    return [link]


def _made_for(links: Sequence[socket.socket], place: RankInfo) -> mmap.mmap:
    """Make the memory, and hand it to the other ranks; or nothing, if it fails."""
    files = []
    try:
        files.append(os.memfd_create("striate"))
        os.ftruncate(files[0], 2 * place.world * SLOT_BYTES)
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


def _given(link: socket.socket, check: Check) -> mmap.mmap:
    """Take the memory that rank 0 hands out."""
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
