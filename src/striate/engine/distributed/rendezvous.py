"""How processes that were just started find each other, and who did not come.

torchrun keeps one store over all its starts, and what a start leaves in it would be
taken for the next one's: addresses of processes that are gone. So the ranks first agree
on a name that no start had before, and keep to the part of the store of that name.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from striate.core.errors import RankError
from striate.engine.distributed.rank_info import RankInfo

JOIN_TIMEOUT = 120.0  # seconds for all processes to have started
_LOOK = 0.05  # seconds from one look into the store to the next


def open_store(
    place: RankInfo, within: float = JOIN_TIMEOUT, again: bool = False
) -> Store:
    """Return the store that the environment names; of a plain start rank 0 keeps it.

    Args:
        place: This rank's.
        within: Seconds that it has to answer, now and later.
        again: A connection of its own for another thread.

    Raises:
        RankError: It cannot be reached.
    """
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    torchruns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    keeps = place.first and not torchruns and not again
    wait = timedelta(seconds=within)
    try:
        store = TCPStore(*where, None, keeps, wait, wait_for_workers=False)
    except RuntimeError as error:
        what = f"rank {place.rank} does not reach MASTER_ADDR:MASTER_PORT"
        fix = "open that port on the first machine to the others"
        raise RankError(what, where="{}:{}".format(*where), fix=fix) from error
    return PrefixStore("striate", store)


def rendezvous(store: Store, place: RankInfo, within: float = JOIN_TIMEOUT) -> str:
    """Wait until every rank of this start is there; return the start's name.

    Args:
        store: All ranks', with what earlier starts left in it.
        place: This rank's.
        within: Seconds after which who is missing does not come.

    Raises:
        RankError: A rank did not come; rank 0 knows which.
    """
    me = secrets.token_hex(8)
    store.set(f"hello/{place.rank}", me)
    end = time.monotonic() + within
    return _call(store, place, end) if place.first else _answer(store, place, me, end)


def _call(store: Store, place: RankInfo, end: float) -> str:
    """Call the roll until all of it answer; who says hello anew gets a new roll."""
    roll: list[str] = []
    name = ""
    while True:
        hellos = [_read(store, f"hello/{rank}") for rank in range(place.world)]
        if hellos != roll:
            roll, name = hellos, secrets.token_hex(8)
            store.set("roll", json.dumps([name, roll]))
        others = range(1, place.world)
        missing = [n for n in others if not store.check([f"here/{name}/{n}"])]
        if not missing:
            store.set(f"go/{name}", "")
            return name
        if time.monotonic() > end:
            raise _late(f"rank {', '.join(map(str, missing))}", place)
        time.sleep(_LOOK)


def _answer(store: Store, place: RankInfo, me: str, end: float) -> str:
    while time.monotonic() < end + _LOOK:
        name, roll = json.loads(_read(store, "roll") or '["", []]')
        if me in roll:
            store.set(f"here/{name}/{place.rank}", "")
            if store.check([f"go/{name}"]):
                return str(name)
        time.sleep(_LOOK)
    raise _late("another rank", place)


def _late(who: str, place: RankInfo) -> RankError:
    what = f"the {place.world} processes of the run did not meet: {who} did not come"
    fix = "see what that one says; --nproc-per-node and --nnodes must be as many"
    return RankError(what, where=f"within {JOIN_TIMEOUT:.0f} s", fix=fix)


def _read(store: Store, key: str) -> str:
    return str(store.get(key).decode()) if store.check([key]) else ""
