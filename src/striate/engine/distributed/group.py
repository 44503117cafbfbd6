"""What ranks tell each other: sums, words, rows and bytes; every wait can be ended."""

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

_SLICE = timedelta(seconds=1)  # after which a wait looks whether there was a fault
# The watch decides how long is too long; slow is no fault.
_NEVER = timedelta(days=30)
_KEPT = "run"


class RankGroup:
    """The processes of a run, as one of them sees them.

    Every method but `keep` and `kept` is called by all ranks, in the same order, and
    returns the same on all of them.

    Args:
        place: Which one this is.
        watch: Finds out why an exchange does not end.
        pulse: Told when this rank waits.
        device: Where large sums are made.
        store: Outlives the processes, where torchrun keeps it.

    Attributes:
        beside: Sums of ranks that are all on this machine.
    """

    def __init__(
        self,
        place: RankInfo,
        watch: Watchdog,
        pulse: Heartbeat,
        device: torch.device,
        store: Store,
    ) -> None:
        self.place = place
        self.pulse = pulse
        self.device = device
        self.together = True  # off while a rank traces a fault by itself
        self.norms_shared = False  # batch norms exchange their statistics
        self.counts_in = True  # off while its images stand in for none of the batch
        self.beside: SharedMemoryReducer | None = None
        self._watch = watch
        self._store = store

    @property
    def world(self) -> int:
        """Return how many there are."""
        return self.place.world

    @property
    def first(self) -> bool:
        """Say whether this one speaks and writes for all of them."""
        return self.place.first

    def total(self, numbers: Tensor, doing: str) -> None:
        """Add up the ranks' tensors, in place.

        Args:
            numbers: Of one shape on all ranks, on `device` or the processor.
            doing: What for, in words, for who waits in vain.

        Raises:
            RankError: A rank died, hung or failed.
        """
        if self.beside is not None and self.beside.takes(numbers):
            beside = self.beside
            self._wait(lambda: beside.total(numbers, self._watch.check), doing)
        else:
            self._wait(lambda: dist.all_reduce(numbers, async_op=True), doing)

    def _wait(self, begin: Callable[[], dist.Work | None], doing: str) -> None:
        if self.world == 1:
            return
        self._watch.check()
        with self.pulse.at(WAITING, doing):
            try:
                work = begin()
                while work is not None and not _ended(work):
                    self._watch.check()
            except (RuntimeError, OSError) as error:
                raise self._watch.blame(error) from error

    def come_together(self, store: Store) -> None:
        """Find a shorter way to the others, where all are on this machine.

        Args:
            store: Of this start alone.

        Raises:
            RankError: A rank died, hung or failed.
        """
        doing = "the ranks of this machine to meet"

        def all_say(yes: bool) -> bool:
            return all(self.words(yes, doing))

        def meet() -> None:
            given = self.place, store, all_say, self._watch.check
            self.beside = connect_local_ranks(*given)

        self._wait(meet, doing)

    def words(self, mine: Any, doing: str) -> list[Any]:
        """Return what every rank has to say, as JSON values, in their order."""
        said = json.dumps(mine).encode()
        sizes = torch.zeros(self.world, dtype=torch.int64)
        sizes[self.place.rank] = len(said)
        self.total(sizes, doing)
        room = torch.zeros(self.world, int(sizes.max()), dtype=torch.uint8)
        room[self.place.rank, : len(said)] = _as_tensor(said)
        self.total(room, doing)
        rows = zip(room, sizes.tolist(), strict=True)
        return [json.loads(bytes(row[:size].numpy())) for row, size in rows]

    def spread(self, payload: bytes, doing: str) -> bytes:
        """Return rank 0's bytes."""
        size = torch.tensor([len(payload) if self.first else 0])
        self.total(size, doing)
        room = torch.zeros(int(size), dtype=torch.uint8)
        if self.first:
            room[:] = _as_tensor(payload)
        self._wait(lambda: dist.broadcast(room, 0, async_op=True), doing)
        return bytes(room.numpy())

    def meet(self, doing: str) -> None:
        """Wait until every rank is here."""
        self.total(torch.zeros(1), doing)

    def largest(self, number: int, doing: str) -> int:
        """Return the largest of the ranks' numbers."""
        return max(int(each) for each in self.words(number, doing))

    def apart(self, place: str) -> RankError:
        """Return the error of ranks that are not at the same place."""
        what = f"the ranks are at different places: {self._watch.places(place)}"
        return RankError(what, fix=RESUME_HINT)

    def keep(self, key: str, text: str) -> None:
        """Keep a word for the processes that torchrun starts in place of these."""
        self._store.set(f"{_KEPT}/{key}", text)

    def kept(self, key: str) -> str:
        """Return what `keep` kept before these processes began, or nothing."""
        name = f"{_KEPT}/{key}"
        if not self.place.attempt or not self._store.check([name]):
            return ""
        return str(self._store.get(name).decode())

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Let the first rank of each machine go ahead, and the others follow."""
        ahead = self.place.local_rank == 0
        if not ahead:
            self.meet("the first process of the machine to read the images")
        yield
        if ahead:
            self.meet("the others to begin to read the images")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Exchange nothing within the network meanwhile."""
        self.together = False
        try:
            yield
        finally:
            self.together = True

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Go through the network with images that count nothing."""
        self.counts_in = False
        try:
            yield
        finally:
            self.counts_in = True


def _ended(work: dist.Work) -> bool:
    """Wait a little; a wait that is over before the work is no failure of it."""
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
def process_group(place: RankInfo, device: torch.device) -> Iterator[RankGroup]:
    """Meet the other processes of the run; leave them in peace, or tell them why not.

    Raises:
        RankError: Not all came, or one died, hung or failed.
    """
    kept = open_store(place)
    start = rendezvous(kept, place)
    _begin(place, PrefixStore(start, kept), device)
    pulse = Heartbeat(PATIENCE)
    own = PrefixStore(f"{start}/watch", open_store(place, PATIENCE, again=True))
    watch = Watchdog(own, place.rank, place.world, pulse, PATIENCE)
    ranks = RankGroup(place, watch, pulse, device, kept)
    watch.start()
    try:
        ranks.come_together(PrefixStore(start, kept))
        yield ranks
        ranks.meet("the others to be done")
    except BaseException as error:
        _part(watch, error)
        raise
    watch.stop()
    if ranks.beside is not None:
        ranks.beside.close()
    dist.destroy_process_group()


def _part(watch: Watchdog, error: BaseException) -> None:
    # All ranks raise these two together, and each other knows.
    if not isinstance(error, InterruptedRunError | NonFiniteError | RankError):
        what = getattr(error, "what", None) or repr(error)
        code = getattr(error, "exit_code", 1)
        watch.tell(f"rank {watch._rank} stopped: {what}", exit_code=code)
    watch.stop()


def _begin(place: RankInfo, store: Store, device: torch.device) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend,
            timeout=timedelta(seconds=JOIN_TIMEOUT),
            store=store,
            rank=place.rank,
            world_size=place.world,
        )
    except (RuntimeError, ValueError) as error:
        what = "the processes of the run cannot reach each other"
        where = str(error).splitlines()[0]
        fix = "GLOO_SOCKET_IFNAME=… names the network between the machines"
        raise RankError(what, where=where, fix=fix) from error
    group = dist.distributed_c10d._get_default_group()
    for each in {torch.device("cpu"), torch.device(device.type)}:
        group._get_backend(each)._set_default_timeout(_NEVER)
