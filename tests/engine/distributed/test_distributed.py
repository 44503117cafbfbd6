"""Several processes as one: shares, pieces, signs of life; and two ranks that agree."""

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
from striate.core.spec import Preprocess
from striate.data.augment.augment import Augment
from striate.data.batches import Batches, rank_slice
from striate.data.subset import Subset
from striate.engine.distributed.heartbeat import BUSY, COMPUTING, WAITING, Pulse
from striate.engine.distributed.process import Process
from striate.engine.distributed.rank_info import RankInfo, fair_threads
from striate.engine.distributed.rendezvous import meet
from striate.engine.distributed.watchdog import Sign, Watch
from striate.engine.step import train_step
from support.torchrun import SUPPORT, run_python


@given(st.integers(0, 300), st.integers(1, 40))
def test_shares_are_the_whole_without_overlap_and_never_single(count, world):
    shares = [range(count)[rank_slice(count, rank, world)] for rank in range(world)]
    assert [n for mine in shares for n in mine] == list(range(count))
    assert count == 1 or all(len(mine) != 1 for mine in shares)
    full = [len(mine) for mine in shares if mine]
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
    alone = batches(18, augment=augment, classes=2)
    ranks = [replace(alone, rank=rank, world_size=3) for rank in range(3)]
    for start in (0, 1):
        theirs = [list(each(1, start)) for each in ranks]
        for number, (x, y) in enumerate(alone(1, start)):
            assert torch.cat([each[number][0] for each in theirs]).equal(x)
            assert sum(len(each[number][1]) for each in theirs) == len(y)
    assert [len(y) for _, y in ranks[2](0)] == [2, 2, 0]


def test_pieces_add_up_to_the_batch():
    torch.manual_seed(0)
    x, y = torch.randn(7, 4).double(), torch.randint(3, (7,))
    found = []
    for pieces in (1, 3):
        torch.manual_seed(1)
        model = nn.Linear(4, 3).double()
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        cost = train_step(model, x, y, optimizer, pieces=pieces)
        found.append((cost, model.weight.detach()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-12)


def test_a_place_is_read_from_the_environment():
    said = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    place = RankInfo.of({**said, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert (place.rank, place.local_rank, place.attempt) == (5, 1, 2)
    assert place.launched
    assert not place.first
    assert RankInfo.of({**said, "RANK": ""}) == RankInfo()
    with pytest.raises(SettingError, match="LOCAL_RANK must be a number, got 'x'"):
        RankInfo.of({**said, "LOCAL_RANK": "x"})
    assert fair_threads(place, {"OMP_NUM_THREADS": "1"}) >= 1
    assert RankInfo.of({}).first


class Clock:
    """Time and work, as a test says."""

    def __init__(self):
        self.now = self.used = 0.0

    def pulse(self):
        return Pulse(10.0, lambda: self.now, lambda: self.used)


def test_slow_is_not_hung():
    """Who computes may take any time; who does nothing may not; waiting is allowed."""
    clock = Clock()
    pulse = clock.pulse()
    with pulse.at(COMPUTING, "step 1"):
        for _ in range(60):
            clock.now, clock.used = clock.now + 1, clock.used + 0.5
            assert not pulse.stands_still(0.0)
        found = []
        for _ in range(12):
            clock.now += 1
            found.append(pulse.stands_still(0.0))
        assert found == [False] * 10 + [True] * 2
    with pulse.at(WAITING, "the others"):
        clock.now += 1000
        assert not pulse.stands_still(0.0)
    assert pulse.kind == BUSY
    assert not pulse.stands_still(0.0)
    clock.now += 100  # a disk may take longer
    assert not pulse.stands_still(0.0)
    clock.now += 100
    assert pulse.stands_still(0.0)


def watching(process, patience=60.0):
    """Return a watch of rank 0 whose neighbor last gave a sign just now."""
    store = HashStore()
    watch = Watch(store, 0, 2, Pulse(patience), patience)
    sign = Sign(beat=1, **asdict(process), kind=COMPUTING, doing="step 1", since=0.0)
    store.set("sign/1", json.dumps(asdict(sign)))
    watch._tick()
    return watch


@pytest.fixture
def neighbor():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait()


def test_a_dead_neighbor_is_named_at_once(neighbor):
    watch = watching(Process.of(neighbor.pid))
    watch.check()
    neighbor.kill()
    neighbor.wait()
    watch._tick()
    with pytest.raises(RankError, match=rf"rank 1 \(process {neighbor.pid} on .* died"):
        watch.check()


def test_a_stopped_neighbor_is_named_and_ended(neighbor):
    """SIGTERM would not end it, and torchrun would wait 30 s before SIGKILL."""
    neighbor.send_signal(signal.SIGSTOP)
    watch = watching(Process.of(neighbor.pid), patience=0.2)
    while not watch._sign.process.stopped:
        time.sleep(0.01)
    time.sleep(0.3)
    watch._tick()
    with pytest.raises(RankError, match=r"no sign of life for .* it was stopped"):
        watch.check()
    assert neighbor.wait(60) < 0


def test_another_process_of_the_same_number_is_left_alone(neighbor):
    other = replace(Process.of(neighbor.pid), began="1")
    assert not other.lives
    other.end()
    assert neighbor.poll() is None


def test_the_first_fault_stays(neighbor):
    watch = watching(Process.of(neighbor.pid))
    watch.tell("first")
    other = Watch(watch._store, 1, 2, Pulse(60.0))
    assert other.tell("second").what == "first"
    assert other.fault.rank == 0


def test_what_an_earlier_start_left_is_not_met():
    """A roll of processes that are gone does not count for those that come."""
    from threading import Thread

    store = HashStore()
    for key, value in (
        ("hello/0", "old"),
        ("hello/1", "old"),
        ("roll", '["x",["old"]]'),
    ):
        store.set(key, value)
    found = {}

    def come(rank, wait):
        time.sleep(wait)
        found[rank] = meet(store, RankInfo(rank=rank, world=2, launched=True))

    both = [Thread(target=come, args=(rank, rank * 0.3)) for rank in (0, 1)]
    for each in both:
        each.start()
    for each in both:
        each.join(30)
    assert found[0] == found[1] != "x"


def test_who_does_not_come_is_named():
    place = RankInfo(rank=0, world=3, launched=True)
    with pytest.raises(RankError, match="rank 1, 2 did not come"):
        meet(HashStore(), place, within=0.1)


def test_two_ranks_agree_with_one_process():
    """See `ranks_agree.py`: gradients, norms, judging, blow-ups, parted weights."""
    ended = run_python(SUPPORT / "two_ranks_agree.py")
    assert ended.code == 0, ended.said[-3000:]
    assert ended.said.count("ok check_") == 15
