"""Raise an error if torchrun starts a command that supports only one process."""

from __future__ import annotations

from striate.core.errors import SettingError
from striate.engine.distributed.rank_info import RankInfo


def check_single_process(what: str, rank_info: RankInfo | None = None) -> None:
    """Raise an error if a command for a single process runs in several processes.

    The message starts with `what`, the command.

    Example:
        >>> check_single_process("drawing", RankInfo(world_size=2))
        Traceback (most recent call last):
        striate.core.errors.SettingError: drawing is for one process, and there are 2
          where: torchrun
          do:    start it without torchrun
    """
    rank_info = rank_info or RankInfo.from_environment()
    if rank_info.world_size <= 1:
        return
    what = f"{what} is for one process, and there are {rank_info.world_size}"
    error = SettingError(what, where="torchrun", fix="start it without torchrun")
    error.reported_elsewhere = not rank_info.is_main
    raise error
