"""Distributed training: rank slices, missing ranks, and two ranks in agreement."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

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
from striate.engine.distributed import missing_ranks
from striate.engine.distributed.missing_ranks import FaultReports
from striate.engine.distributed.rank_info import RankInfo, threads_per_rank
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


@pytest.fixture
def neighbor():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait()


def reports_of(process, timeout=60.0):
    """Return the reports of rank 0, whose only neighbor is a process."""
    store = HashStore()
    store.set("process/1", json.dumps([process.pid, socket.gethostname()]))
    reports = FaultReports(store, 0, 2, timeout)
    reports.wait_for_all()
    return reports


CAUSE = RuntimeError("Connection closed by peer")


def test_dead_rank_is_named_at_once(neighbor):
    reports = reports_of(neighbor)
    neighbor.kill()
    neighbor.wait()
    began = time.monotonic()
    error = reports.error("the gradients of step 3", CAUSE)
    assert f"rank 1 (process {neighbor.pid} on " in error.what
    assert error.what.endswith(" died")
    assert time.monotonic() - began < 1


def test_stopped_rank_is_named_and_killed(neighbor):
    """SIGTERM would not end it, and torchrun would wait 30 s before SIGKILL."""
    neighbor.send_signal(signal.SIGSTOP)
    reports = reports_of(neighbor)
    assert reports.error("the loss", CAUSE).what.endswith(" was stopped")
    assert neighbor.wait(60) < 0


def test_rank_that_does_not_answer_is_named(neighbor, monkeypatch):
    monkeypatch.setattr(missing_ranks, "_REPORT_TIME", 0.3)
    error = reports_of(neighbor).error("the loss", CAUSE)
    assert error.what.endswith(" does not answer")
    assert neighbor.poll() is None


def test_failure_of_another_rank_is_repeated(neighbor):
    reports = reports_of(neighbor)
    FaultReports(reports._store, 1, 2, 60.0).report_fault("the disk is full")
    error = reports.error("the loss", CAUSE)
    assert error.what == "rank 1 failed: the disk is full"


def test_different_operations_are_listed(neighbor):
    reports = reports_of(neighbor)
    reports._store.set("waits/1", "the loss of step 4")
    error = reports.error("the loss of step 3", CAUSE)
    texts = "rank 0: the loss of step 3; rank 1: the loss of step 4"
    assert error.what == f"the ranks are at different operations: {texts}"
    same = reports.error("the loss of step 4", CAUSE)
    assert same.what == "the loss of step 4: Connection closed by peer"


def test_wait_for_a_rank_ends_when_it_is_done_or_dies(neighbor):
    reports = reports_of(neighbor)
    FaultReports(reports._store, 1, 2, 60.0).report_done("reading")
    reports.wait_for(1, "reading")
    neighbor.kill()
    neighbor.wait()
    with pytest.raises(RankError, match="died"):
        reports.wait_for(1, "reading")  # the second time


def test_wait_for_a_stopped_rank_ends_after_the_timeout(neighbor):
    reports = reports_of(neighbor, timeout=0.3)
    neighbor.send_signal(signal.SIGSTOP)
    with pytest.raises(RankError, match="was stopped"):
        reports.wait_for(1, "reading")


def test_rank_that_did_not_start_is_named():
    with pytest.raises(RankError, match=r"rank 1, 2 did not start within 0 s"):
        FaultReports(HashStore(), 0, 3, 0.1).wait_for_all()


def test_two_ranks_agree_with_one_process():
    """See `ranks_agree.py`: gradients, norms, evaluation, NaN, unequal weights."""
    result = run_python(SUPPORT / "two_ranks_agree.py")
    assert result.code == 0, result.said[-3000:]
    assert result.said.count("ok check_") == 13
