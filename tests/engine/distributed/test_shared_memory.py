"""All-reduce in shared memory, tested between threads."""

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

from striate.engine.distributed import shared_memory
from striate.engine.distributed.rank_info import RankInfo
from striate.engine.distributed.shared_memory import (
    SharedMemoryReducer,
    connect_local_ranks,
)


@pytest.fixture(autouse=True, scope="module")
def small_slots():
    """Hold little memory: hundreds of groups are made here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_memory, "SLOT_BYTES", 1 << 12)
        patch.setattr(shared_memory, "_LOOK", 0.05)
        yield


def no_fault():
    """Find no fault."""


def rank_info(rank, world):
    return RankInfo(
        rank=rank, world_size=world, local_rank=rank, local_world_size=world
    )


class Group:
    """Ranks side by side in threads of one process."""

    def __init__(self, world):
        self.links = ExitStack()
        pairs = [socket.socketpair() for _ in range(1, world)]
        for link in (each for pair in pairs for each in pair):
            link.settimeout(shared_memory._LOOK)
            self.links.enter_context(link)
        memory = mmap.mmap(-1, 2 * world * shared_memory.SLOT_BYTES)
        own = [[pair[0] for pair in pairs], *([pair[1]] for pair in pairs)]
        self.ranks = [
            SharedMemoryReducer(memory, rank_info(rank, world), links)
            for rank, links in enumerate(own)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *how):
        self.links.close()

    def all_reduce_rounds(self, rounds):
        """Let every rank add up its tensors, one after the other."""

        def work(rank):
            own = [numbers[rank].clone() for numbers in rounds]
            for numbers in own:
                self.ranks[rank].all_reduce(numbers, no_fault)
            return own

        with ThreadPoolExecutor(len(self.ranks)) as pool:
            return list(pool.map(work, range(len(self.ranks))))


SEEDS = st.integers(0, 999)
DTYPES = [torch.float32, torch.float64, torch.int64, torch.uint8]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(2, 5), st.integers(1, 6), st.sampled_from(DTYPES), st.integers(0, 999)
)
def test_all_reduce_gives_equal_sums_on_all_ranks(world, count, dtype, seed):
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 90, (count,), generator=draw).tolist()
    rounds = [
        [(torch.rand(size, generator=draw) * 40).to(dtype) for _ in range(world)]
        for size in sizes
    ]
    with Group(world) as group:
        results = group.all_reduce_rounds(rounds)
    for number, numbers in enumerate(rounds):
        expected = numbers[0].clone()
        for other in numbers[1:]:
            expected += other
        assert all(torch.equal(own[number], expected) for own in results)


def test_accepts():
    with Group(2) as group:
        accepts = group.ranks[0].accepts
    assert accepts(torch.zeros(shared_memory.SLOT_BYTES // 4))
    assert not accepts(torch.zeros(shared_memory.SLOT_BYTES // 4 + 1))
    assert not accepts(torch.zeros(0))
    assert not accepts(torch.zeros(3, 4).T)
    assert not accepts(torch.zeros(3, device="meta"))


def test_waiting_rank_checks_for_faults_and_closed_links():
    class FaultError(Exception):
        pass

    def results():
        raise FaultError

    with Group(2) as group:
        with pytest.raises(FaultError):
            group.ranks[0].all_reduce(torch.ones(3), results)
        group.ranks[1].close()
        with pytest.raises(ConnectionError, match="has gone"):
            group.ranks[0].all_reduce(torch.ones(3), no_fault)


def connect(world, vote=lambda rank, flag: flag, **more):
    """Let ranks meet in threads; `vote` may say no in one's place."""
    store, votes = HashStore(), HashStore()

    def work(rank):
        number = 0

        def all_agree(flag):
            nonlocal number
            number += 1
            word = "yes" if vote(rank, flag) else "no"
            votes.set(f"{number}/{rank}", word)
            answers = [votes.get(f"{number}/{each}") for each in range(world)]
            return all(each == b"yes" for each in answers)

        info = RankInfo(rank=rank, world_size=world, local_rank=rank, **more)
        return connect_local_ranks(info, store, all_agree, no_fault)

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(work, range(world)))


def test_connect_local_ranks_leaves_no_open_files():
    before = set(os.listdir("/proc/self/fd"))
    ranks = connect(3, local_world_size=3)
    with ThreadPoolExecutor(3) as pool:
        own = [torch.full((4,), float(rank)) for rank in range(3)]
        list(
            pool.map(lambda reducer, own: reducer.all_reduce(own, no_fault), ranks, own)
        )
    assert all(own.tolist() == [3.0] * 4 for own in own)
    for reducer in ranks:
        reducer.close()
        reducer._memory.close()
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("refused", [1, 2])
def test_no_shared_memory_if_one_rank_fails(refused):
    votes_seen = []

    def vote(rank, flag):
        votes_seen.append(rank)
        return flag and not (rank == 1 and votes_seen.count(1) == refused)

    assert connect(3, vote, local_world_size=3) == [None] * 3


def test_no_shared_memory_if_allocation_fails(monkeypatch):
    def refuse(_):
        raise OSError("no memory")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert connect(2, local_world_size=2) == [None] * 2


def test_no_shared_memory_between_machines():
    assert connect(2, local_world_size=1) == [None] * 2
    assert connect_local_ranks(RankInfo(), HashStore(), bool, no_fault) is None
