"""Distributed training: rank slices, heartbeat, watchdog, rendezvous, two ranks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed import HashStore

from striate.core.errors import RankError, SettingError
from striate.core.preprocess_config import Preprocess
from striate.data.augment.augment import Augment
from striate.data.batches import Batches, rank_slice
from striate.data.subset import Subset
from striate.engine.distributed.heartbeat import BUSY, COMPUTING, WAITING, Heartbeat
from striate.engine.distributed.process import Process
from striate.engine.distributed.rank_info import RankInfo, threads_per_rank
from striate.engine.distributed.rendezvous import rendezvous
from striate.engine.distributed.watchdog import SignOfLife, Watchdog
from striate.engine.train_step import train_step
from support.torchrun import SUPPORT, run_python


@given(st.integers(0, 300), st.integers(1, 40))
def test_rank_slices_partition_the_batch(count, world):
    shares = [range(count)[rank_slice(count, rank, world)] for rank in range(world)]
    assert [n for own in shares for n in own] == list(range(count))
    assert count == 1 or all(len(own) != 1 for own in shares)
    full = [len(own) for own in shares if own]
    assert not full or max(full) - min(full) <= 1


def batches(count, **more):
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    subset = Subset.of(pixels, [0] * count, [str(n) for n in range(count)])
    p = Preprocess(channels=1, height=1, width=1, mean=(0.0,), std=(1.0,))
    return Batches(subset=subset, preprocess=p, batch_size=8, seed=3, **more)


CHANGES = [Augment(), Augment(color=0.3), Augment(mixup=0.4), Augment(shift=0.2)]


@pytest.mark.parametrize("augment", CHANGES)
def test_ranks_see_the_images_of_one_process(augment):
    """The same batches, also from the middle of an epoch, and an empty last share."""
    whole = batches(18, augment=augment, classes=2)
    ranks = [replace(whole, rank=rank, world_size=3) for rank in range(3)]
    for start in (0, 1):
        rank_batches = [list(each(1, start)) for each in ranks]
        for number, (x, y) in enumerate(whole(1, start)):
            assert torch.cat([each[number][0] for each in rank_batches]).equal(x)
            assert sum(len(each[number][1]) for each in rank_batches) == len(y)
    assert [len(y) for _, y in ranks[2](0)] == [2, 2, 0]


def test_micro_batches_add_up_to_the_batch():
    torch.manual_seed(0)
    x, y = torch.randn(7, 4).double(), torch.randint(3, (7,))
    results = []
    for micro_batches in (1, 3):
        torch.manual_seed(1)
        model = nn.Linear(4, 3).double()
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        loss = train_step(model, x, y, optimizer, micro_batches=micro_batches)
        results.append((loss, model.weight.detach()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-12)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-12)


def test_rank_info_from_environment():
    environment = {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
    }
    rank_info = RankInfo.from_environment(
        {**environment, "TORCHELASTIC_RESTART_COUNT": "2"}
    )
    assert (rank_info.rank, rank_info.local_rank, rank_info.attempt) == (5, 1, 2)
    assert rank_info.launched
    assert not rank_info.is_main
    assert RankInfo.from_environment({**environment, "RANK": ""}) == RankInfo()
    with pytest.raises(SettingError, match="LOCAL_RANK must be a number, got 'x'"):
        RankInfo.from_environment({**environment, "LOCAL_RANK": "x"})
    assert threads_per_rank(rank_info, {"OMP_NUM_THREADS": "1"}) >= 1
    assert RankInfo.from_environment({}).is_main


class Clock:
    """Time and work, as a test says."""

    def __init__(self):
        self.now = self.used = 0.0

    def heartbeat(self):
        return Heartbeat(10.0, lambda: self.now, lambda: self.used)


def test_slow_rank_is_not_stuck():
    """Who computes may take any time; who does nothing may not; waiting is allowed."""
    clock = Clock()
    heartbeat = clock.heartbeat()
    with heartbeat.activity(COMPUTING, "step 1"):
        for _ in range(60):
            clock.now, clock.used = clock.now + 1, clock.used + 0.5
            assert not heartbeat.is_stuck(0.0)
        results = []
        for _ in range(12):
            clock.now += 1
            results.append(heartbeat.is_stuck(0.0))
        assert results == [False] * 10 + [True] * 2
    with heartbeat.activity(WAITING, "the others"):
        clock.now += 1000
        assert not heartbeat.is_stuck(0.0)
    assert heartbeat.kind == BUSY
    assert not heartbeat.is_stuck(0.0)
    clock.now += 100  # a disk may take longer
    assert not heartbeat.is_stuck(0.0)
    clock.now += 100
    assert heartbeat.is_stuck(0.0)


def watchdog_of(process, patience=60.0):
    """Return a watch of rank 0 whose neighbor last gave a sign just now."""
    store = HashStore()
    watchdog = Watchdog(store, 0, 2, Heartbeat(patience), patience)
    sign = SignOfLife(
        beat=1, **asdict(process), kind=COMPUTING, description="step 1", seconds=0.0
    )
    store.set("sign/1", json.dumps(asdict(sign)))
    watchdog._tick()
    return watchdog


@pytest.fixture
def neighbor():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait()


def test_dead_rank_is_named_at_once(neighbor):
    watchdog = watchdog_of(Process.of(neighbor.pid))
    watchdog.check()
    neighbor.kill()
    neighbor.wait()
    watchdog._tick()
    with pytest.raises(RankError, match=rf"rank 1 \(process {neighbor.pid} on .* died"):
        watchdog.check()


def test_stopped_rank_is_named_and_killed(neighbor):
    """SIGTERM would not end it, and torchrun would wait 30 s before SIGKILL."""
    neighbor.send_signal(signal.SIGSTOP)
    watchdog = watchdog_of(Process.of(neighbor.pid), patience=0.2)
    while not watchdog._sign.process.is_stopped:
        time.sleep(0.01)
    time.sleep(0.3)
    watchdog._tick()
    with pytest.raises(RankError, match=r"no sign of life for .* it was stopped"):
        watchdog.check()
    assert neighbor.wait(60) < 0


def test_other_process_with_the_same_pid_is_not_killed(neighbor):
    other = replace(Process.of(neighbor.pid), started="1")
    assert not other.is_alive
    other.kill()
    assert neighbor.poll() is None


def test_first_fault_is_kept(neighbor):
    watchdog = watchdog_of(Process.of(neighbor.pid))
    watchdog.report("first")
    other = Watchdog(watchdog._store, 1, 2, Heartbeat(60.0))
    assert other.report("second").what == "first"
    assert other.fault.rank == 0


def test_rendezvous_ignores_an_earlier_start():
    """A roll of processes that are gone does not count for those that come."""
    from threading import Thread

    store = HashStore()
    for key, value in (
        ("hello/0", "old"),
        ("hello/1", "old"),
        ("roll", '["x",["old"]]'),
    ):
        store.set(key, value)
    results = {}

    def join(rank, wait):
        time.sleep(wait)
        results[rank] = rendezvous(
            store, RankInfo(rank=rank, world_size=2, launched=True)
        )

    threads = [Thread(target=join, args=(rank, rank * 0.3)) for rank in (0, 1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert results[0] == results[1] != "x"


def test_missing_rank_is_named():
    rank_info = RankInfo(rank=0, world_size=3, launched=True)
    with pytest.raises(RankError, match="rank 1, 2 is missing"):
        rendezvous(HashStore(), rank_info, timeout=0.1)


def test_two_ranks_agree_with_one_process():
    """See `ranks_agree.py`: gradients, norms, judging, blow-ups, parted weights."""
    result = run_python(SUPPORT / "two_ranks_agree.py")
    assert result.code == 0, result.said[-3000:]
    assert result.said.count("ok check_") == 15
