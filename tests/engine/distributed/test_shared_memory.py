"""Ranks of one machine: sums in shared memory, here between threads."""

from __future__ import annotations

import mmap
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed import HashStore

from striate.engine.distributed import shared_memory as beside
from striate.engine.distributed.rank_info import RankInfo
from striate.engine.distributed.shared_memory import (
    SharedMemoryReducer,
    connect_local_ranks,
)


@pytest.fixture(autouse=True, scope="module")
def small_slots():
    """Hold little memory: hundreds of groups are made here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beside, "SLOT_BYTES", 1 << 12)
        patch.setattr(beside, "_LOOK", 0.05)
        yield


def nothing():
    """Find no fault."""


def place(rank, world):
    return RankInfo(rank=rank, world=world, local_rank=rank, local_world=world)


class Group:
    """Ranks side by side in threads of one process."""

    def __init__(self, world):
        self.links = ExitStack()
        pairs = [socket.socketpair() for _ in range(1, world)]
        for link in (each for pair in pairs for each in pair):
            link.settimeout(beside._LOOK)
            self.links.enter_context(link)
        memory = mmap.mmap(-1, 2 * world * beside.SLOT_BYTES)
        own = [[pair[0] for pair in pairs], *([pair[1]] for pair in pairs)]
        self.ranks = [
            SharedMemoryReducer(memory, place(rank, world), links)
            for rank, links in enumerate(own)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *how):
        self.links.close()

    def totals(self, rounds):
        """Let every rank add up its tensors, one after the other."""

        def work(rank):
            mine = [numbers[rank].clone() for numbers in rounds]
            for numbers in mine:
                self.ranks[rank].total(numbers, nothing)
            return mine

        with ThreadPoolExecutor(len(self.ranks)) as pool:
            return list(pool.map(work, range(len(self.ranks))))


SEEDS = st.integers(0, 999)
DTYPES = [torch.float32, torch.float64, torch.int64, torch.uint8]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(2, 5), st.integers(1, 6), st.sampled_from(DTYPES), st.integers(0, 999)
)
def test_every_rank_gets_the_same_bits_which_are_the_sum(world, count, dtype, seed):
    chance = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 90, (count,), generator=chance).tolist()
    rounds = [
        [(torch.rand(size, generator=chance) * 40).to(dtype) for _ in range(world)]
        for size in sizes
    ]
    with Group(world) as group:
        found = group.totals(rounds)
    for number, numbers in enumerate(rounds):
        expected = numbers[0].clone()
        for other in numbers[1:]:
            expected += other
        assert all(torch.equal(mine[number], expected) for mine in found)


def test_what_it_takes():
    with Group(2) as group:
        takes = group.ranks[0].takes
    assert takes(torch.zeros(beside.SLOT_BYTES // 4))
    assert not takes(torch.zeros(beside.SLOT_BYTES // 4 + 1))
    assert not takes(torch.zeros(0))
    assert not takes(torch.zeros(3, 4).T)
    assert not takes(torch.zeros(3, device="meta"))


def test_who_waits_looks_for_faults_and_hears_of_an_end():
    class FaultError(Exception):
        pass

    def found():
        raise FaultError

    with Group(2) as group:
        with pytest.raises(FaultError):
            group.ranks[0].total(torch.ones(3), found)
        group.ranks[1].close()
        with pytest.raises(ConnectionError, match="has gone"):
            group.ranks[0].total(torch.ones(3), nothing)


def meeting(world, says=lambda rank, yes: yes, **more):
    """Let ranks meet in threads; `says` may say no in one's place."""
    store, said = HashStore(), HashStore()

    def work(rank):
        number = 0

        def all_say(yes):
            nonlocal number
            number += 1
            word = "yes" if says(rank, yes) else "no"
            said.set(f"{number}/{rank}", word)
            every = [said.get(f"{number}/{each}") for each in range(world)]
            return all(each == b"yes" for each in every)

        where = RankInfo(rank=rank, world=world, local_rank=rank, **more)
        return connect_local_ranks(where, store, all_say, nothing)

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(work, range(world)))


def test_they_meet_and_leave_nothing():
    before = set(os.listdir("/proc/self/fd"))
    ranks = meeting(3, local_world=3)
    with ThreadPoolExecutor(3) as pool:
        mine = [torch.full((4,), float(rank)) for rank in range(3)]
        list(pool.map(lambda one, own: one.total(own, nothing), ranks, mine))
    assert all(own.tolist() == [3.0] * 4 for own in mine)
    for one in ranks:
        one.close()
        one._memory.close()
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("refused", [1, 2])
def test_all_do_without_it_where_one_cannot(refused):
    asked = []

    def says(rank, yes):
        asked.append(rank)
        return yes and not (rank == 1 and asked.count(1) == refused)

    assert meeting(3, says, local_world=3) == [None] * 3


def test_memory_that_is_refused_is_done_without(monkeypatch):
    def refuse(_):
        raise OSError("no memory")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert meeting(2, local_world=2) == [None] * 2


def test_ranks_of_several_machines_do_not_meet():
    assert meeting(2, local_world=1) == [None] * 2
    assert connect_local_ranks(RankInfo(), HashStore(), bool, nothing) is None
