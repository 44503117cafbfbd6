"""Which process of a run this is, as torchrun says it in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from striate.core.cpu_count import cpu_count
from striate.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class RankInfo:
    """One process among those of a run.

    Args:
        rank: Its number, from 0; rank 0 writes the run folder.
        world: How many there are.
        local_rank: Its number on this machine.
        local_world: How many are on this machine.
        attempt: How often torchrun has started them again.
        launched: A launcher has started this process.

    Example:
        >>> RankInfo.of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}).rank
        3
        >>> RankInfo.of({}).launched
        False
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    attempt: int = 0
    launched: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> RankInfo:
        """Read the environment of a process that a launcher has started.

        Raises:
            SettingError: One of its variables is no number.
        """
        if not environment.get("RANK") or not environment.get("WORLD_SIZE"):
            return cls()
        return cls(
            rank=_number(environment, "RANK"),
            world=_number(environment, "WORLD_SIZE"),
            local_rank=_number(environment, "LOCAL_RANK", "0"),
            local_world=_number(environment, "LOCAL_WORLD_SIZE", "1"),
            attempt=_number(environment, "TORCHELASTIC_RESTART_COUNT", "0"),
            launched=True,
        )

    @property
    def first(self) -> bool:
        """Say whether this process speaks and writes for all of them."""
        return self.rank == 0


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    value = environment.get(name) or default
    if not value.isdecimal():
        what = f"{name} must be a number, got '{value}'"
        raise SettingError(what, where="the environment", fix=f"unset {name}")
    return int(value)


def check_single_process(what: str, place: RankInfo | None = None) -> None:
    """Refuse what several processes would each do in full, over each other's files.

    Args:
        what: Would be done, as a message begins.
        place: By which process; the environment says it where None.

    Raises:
        SettingError: There are several; rank 0 says it for all.

    Example:
        >>> check_single_process("drawing", RankInfo(world=2))
        Traceback (most recent call last):
        striate.core.errors.SettingError: drawing is for one process, and there are 2
          where: torchrun
          do:    start it without torchrun
    """
    place = place or RankInfo.of()
    if place.world <= 1:
        return
    what = f"{what} is for one process, and there are {place.world}"
    error = SettingError(what, where="torchrun", fix="start it without torchrun")
    error.reported_elsewhere = not place.first
    raise error


def threads_per_rank(
    place: RankInfo, environment: Mapping[str, str] = os.environ
) -> int:
    """Return the threads of this process: its share of the machine's processors.

    torchrun sets `OMP_NUM_THREADS=1` where the user has set nothing, so 1 is taken for
    torchrun's and any other number for the user's.

    Example:
        >>> threads_per_rank(RankInfo(), {"OMP_NUM_THREADS": "3"})
        3
    """
    asked = environment.get("OMP_NUM_THREADS", "1")
    if asked.isdecimal() and int(asked) > 1:
        return int(asked)
    return max(1, cpu_count() // place.local_world)
