"""Rank and world size of this process, from torchrun's environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from striate.core.cpu_count import cpu_count
from striate.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class RankInfo:
    """Rank, world size and restart count of one process of a run.

    Example:
        >>> RankInfo.from_environment({"RANK": "3", "WORLD_SIZE": "4"}).rank
        3
        >>> RankInfo.from_environment({}).launched
        False
    """

    rank: int = 0  # its number, from 0; rank 0 writes the run folder
    world_size: int = 1  # how many there are
    local_rank: int = 0  # its number on this machine
    local_world_size: int = 1  # how many are on this machine
    attempt: int = 0  # how often torchrun has started them again
    launched: bool = False  # whether a launcher has started this process

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> RankInfo:
        """Read the environment variables that a launcher has set.

        Raises:
            SettingError: One of the variables is not a number.
        """
        if not environment.get("RANK") or not environment.get("WORLD_SIZE"):
            return cls()
        return cls(
            rank=_number(environment, "RANK"),
            world_size=_number(environment, "WORLD_SIZE"),
            local_rank=_number(environment, "LOCAL_RANK", "0"),
            local_world_size=_number(environment, "LOCAL_WORLD_SIZE", "1"),
            attempt=_number(environment, "TORCHELASTIC_RESTART_COUNT", "0"),
            launched=True,
        )

    @property
    def is_main(self) -> bool:
        """Return whether this is rank 0, which prints and writes for all ranks."""
        return self.rank == 0


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    value = environment.get(name) or default
    if not value.isdecimal():
        what = f"{name} must be a number, got '{value}'"
        raise SettingError(what, where="the environment", fix=f"unset {name}")
    return int(value)


def threads_per_rank(
    rank_info: RankInfo, environment: Mapping[str, str] = os.environ
) -> int:
    """Return the number of threads of a rank: its share of the machine's CPU cores.

    torchrun sets `OMP_NUM_THREADS=1` unless the user has set it, so 1 is taken as
    torchrun's and any other number as the user's.

    Example:
        >>> threads_per_rank(RankInfo(), {"OMP_NUM_THREADS": "3"})
        3
    """
    threads = environment.get("OMP_NUM_THREADS", "1")
    if threads.isdecimal() and int(threads) > 1:
        return int(threads)
    return max(1, cpu_count() // rank_info.local_world_size)
