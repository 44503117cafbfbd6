"""RankGroup: the processes of a run and their collective operations.

Everything here is torch.distributed, started by torchrun. One process is a group of
one, whose collective operations do nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from striate.core.errors import InterruptedRunError, NonFiniteError, RankError
from striate.engine.distributed.missing_ranks import FaultReports
from striate.engine.distributed.rank_info import RankInfo

_RUNS = count()
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


class RankGroup:
    """Group of all processes (ranks) of a run, with the rank of this process.

    All ranks must call every method but `store_set` and `store_get`, in the same
    order. A method returns the same value on all ranks.

    Args:
        rank_info: Rank and world size of this process.
        store: Key-value store; torchrun keeps it when it restarts the processes.
        reports: Finds out which rank is missing after a failed collective operation.
        gloo: Process group for Python objects.

    Attributes:
        is_main: Whether this is rank 0, which prints and writes for all.
        is_distributed: Whether there are several ranks.

    Example:
        >>> RankGroup().all_gather_object("value", "an example")
        ['value']
    """

    def __init__(
        self,
        rank_info: RankInfo = RankInfo(),  # noqa: B008 - it is frozen
        store: Store | None = None,
        reports: FaultReports | None = None,
        gloo: dist.ProcessGroup | None = None,
    ) -> None:
        self.rank = rank_info.rank
        self.world_size = rank_info.world_size
        self.is_main = rank_info.is_main
        self.is_distributed = rank_info.world_size > 1
        self._rank_info = rank_info
        self._store = store
        self._reports = reports
        self._gloo = gloo

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Context manager: if communication fails, the error names the missing rank.

        Raises:
            RankError: A rank died, was stopped, failed or does not answer.
        """
        try:
            yield
        except RuntimeError as error:
            if self._reports is None or not _is_communication_error(error):
                raise
            raise self._reports.error(name, error) from error

    def all_reduce(self, tensor: Tensor, name: str) -> None:
        """Sum the ranks' tensors in place; fails after the timeout of the run."""
        if self.is_distributed:
            with self.operation(name):
                dist.all_reduce(tensor)

    def all_gather_object(self, value: Any, name: str) -> list[Any]:
        """Return the values of all ranks, in the order of the ranks."""
        if not self.is_distributed:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self.operation(name):
            dist.all_gather_object(values, value, group=self._gloo)
        return values

    def broadcast(self, value: Any, name: str) -> Any:
        """Return the value of rank 0 on all ranks."""
        if not self.is_distributed:
            return value
        values = [value if self.is_main else None]
        with self.operation(name):
            dist.broadcast_object_list(values, src=0, group=self._gloo)
        return values[0]

    def barrier(self, name: str) -> None:
        """Wait until all ranks have called this method."""
        if self.is_distributed:
            with self.operation(name):
                dist.monitored_barrier(self._gloo)

    def store_set(self, key: str, text: str) -> None:
        """Store a text that processes can read after torchrun has restarted them."""
        if self._store is not None:
            self._store.set(f"run/{key}", text)

    def store_get(self, key: str) -> str:
        """Return a text that `store_set` stored before this restart, or ''."""
        name = f"run/{key}"
        if self._store is None or not self._rank_info.attempt:
            return ""
        return self._store.get(name).decode() if self._store.check([name]) else ""

    @contextmanager
    def rank_first(self, rank: int, name: str) -> Iterator[None]:
        """Context manager: one rank runs the block before all other ranks.

        There is no timeout, since reading images may take hours. A rank that died,
        failed or was stopped is a `RankError`.
        """
        if self._reports is not None and self.rank != rank:
            self._reports.wait_for(rank, name)
        yield
        if self._reports is not None and self.rank == rank:
            self._reports.report_done(name)

    def local_main_first(self, name: str) -> AbstractContextManager[None]:
        """Context manager: the first rank of each machine runs the block first."""
        return self.rank_first(self.rank - self._rank_info.local_rank, name)


ONE_PROCESS = RankGroup()


def _is_communication_error(error: RuntimeError) -> bool:
    """Return whether an error is a failed collective operation, by type or message."""
    texts = ("gloo", "NCCL", "c10d", "monitoredBarrier", "ProcessGroup")
    return isinstance(error, dist.DistError) or any(t in str(error) for t in texts)


@contextmanager
def join_process_group(
    rank_info: RankInfo, device: torch.device, timeout: float = 60.0
) -> Iterator[RankGroup]:
    """Context manager: join the processes that torchrun has started.

    Args:
        rank_info: Rank and world size of this process.
        device: Device of the gradients; GPUs communicate by NCCL, CPUs by gloo.
        timeout: Seconds until a collective operation of a training step fails.

    Raises:
        RankError: A rank did not start, died, was stopped, failed or does not answer.
    """
    _signal_at_end_of_launcher(signal.SIGTERM)
    store = _open_store(rank_info, timeout)
    # A name of its own for every start and every run of a program: keys stay.
    name = f"attempt {rank_info.attempt} run {next(_RUNS)}"
    own_store = PrefixStore(name, store)
    reports = FaultReports(own_store, rank_info.rank, rank_info.world_size, timeout)
    reports.wait_for_all()
    _init_process_group(rank_info, own_store, device, timeout)
    gloo = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
    group = RankGroup(rank_info, store, reports, gloo)
    try:
        yield group
        group.barrier("the ranks end")
    except BaseException as error:
        # All ranks raise the first three together.
        if not isinstance(error, InterruptedRunError | NonFiniteError | RankError):
            reports.report_fault(getattr(error, "what", None) or repr(error))
        raise
    dist.destroy_process_group()
    _signal_at_end_of_launcher(0)


def _signal_at_end_of_launcher(number: int) -> None:
    """Ask Linux to send this process a signal when torchrun dies; 0 means no signal."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _open_store(rank_info: RankInfo, timeout: float) -> Store:
    """Connect to torchrun's key-value store; without torchrun, rank 0 hosts it."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    has_host = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_host = rank_info.is_main and not has_host
    limit = timedelta(seconds=timeout)
    try:
        store = TCPStore(host, port, None, is_host, limit, wait_for_workers=False)
    except RuntimeError as error:
        what = f"rank {rank_info.rank} cannot {'open' if is_host else 'reach'} "
        what += "MASTER_ADDR:MASTER_PORT"
        fix = "use a free port that the other machines can reach: --master-port"
        raise RankError(what, where=f"{host}:{port}", fix=fix) from error
    return PrefixStore("striate", store)


def _init_process_group(
    rank_info: RankInfo, store: Store, device: torch.device, timeout: float
) -> None:
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(seconds=timeout),
            store=store,
            rank=rank_info.rank,
            world_size=rank_info.world_size,
        )
    except (RuntimeError, ValueError) as error:
        what = "the processes of the run cannot reach each other"
        where = str(error).splitlines()[0]
        fix = "set GLOO_SOCKET_IFNAME to the network interface between the machines"
        raise RankError(what, where=where, fix=fix) from error
