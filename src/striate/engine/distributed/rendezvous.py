"""Rendezvous: ranks that were just started find each other, or learn who is missing.

torchrun keeps one store over all its restarts, and keys of an earlier start would be
mistaken for new ones: addresses of processes that are gone. So the ranks first agree on
a new name, and use only keys with this prefix.
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
    rank_info: RankInfo, timeout: float = JOIN_TIMEOUT, second: bool = False
) -> Store:
    """Return the key-value store of the environment; without torchrun rank 0 hosts it.

    Args:
        rank_info: Rank and world size of this process.
        timeout: Seconds until a request fails.
        second: Open a second connection, for another thread.

    Raises:
        RankError: The store cannot be reached.
    """
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    agent_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_server = rank_info.is_main and not agent_store and not second
    wait = timedelta(seconds=timeout)
    try:
        store = TCPStore(*where, None, is_server, wait, wait_for_workers=False)
    except RuntimeError as error:
        what = f"rank {rank_info.rank} does not reach MASTER_ADDR:MASTER_PORT"
        fix = "open that port on the first machine to the others"
        raise RankError(what, where="{}:{}".format(*where), fix=fix) from error
    return PrefixStore("striate", store)


def rendezvous(store: Store, rank_info: RankInfo, timeout: float = JOIN_TIMEOUT) -> str:
    """Wait until every rank of this start has joined; return the start's name.

    Args:
        store: Key-value store of all ranks, with keys of earlier starts.
        rank_info: Rank and world size of this process.
        timeout: Seconds until a missing rank is an error.

    Raises:
        RankError: A rank did not join; rank 0 names it.
    """
    token = secrets.token_hex(8)
    store.set(f"hello/{rank_info.rank}", token)
    end = time.monotonic() + timeout
    if rank_info.is_main:
        return _coordinate(store, rank_info, end)
    return _participate(store, rank_info, token, end)


def _coordinate(store: Store, rank_info: RankInfo, end: float) -> str:
    """Publish a list of tokens until all its ranks answer; a new token renews it."""
    tokens: list[str] = []
    name = ""
    while True:
        ranks = range(rank_info.world_size)
        announced = [_read(store, f"hello/{rank}") for rank in ranks]
        if announced != tokens:
            tokens, name = announced, secrets.token_hex(8)
            store.set("roll", json.dumps([name, tokens]))
        missing = [n for n in ranks[1:] if not store.check([f"here/{name}/{n}"])]
        if not missing:
            store.set(f"go/{name}", "")
            return name
        if time.monotonic() > end:
            raise _timeout_error(f"rank {', '.join(map(str, missing))}", rank_info)
        time.sleep(_LOOK)


def _participate(store: Store, rank_info: RankInfo, token: str, end: float) -> str:
    while time.monotonic() < end + _LOOK:
        name, tokens = json.loads(_read(store, "roll") or '["", []]')
        if token in tokens:
            store.set(f"here/{name}/{rank_info.rank}", "")
            if store.check([f"go/{name}"]):
                return str(name)
        time.sleep(_LOOK)
    raise _timeout_error("another rank", rank_info)


def _timeout_error(who: str, rank_info: RankInfo) -> RankError:
    world = rank_info.world_size
    what = f"the {world} processes of the run did not all start: {who} is missing"
    fix = "see its output; --nproc-per-node and --nnodes must match that number"
    return RankError(what, where=f"within {JOIN_TIMEOUT:.0f} s", fix=fix)


def _read(store: Store, key: str) -> str:
    return str(store.get(key).decode()) if store.check([key]) else ""
