"""Distributed training: join the processes, share the state of rank 0, run checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from striate.core import device as devices
from striate.core.errors import RankError, SettingError
from striate.data.image_data import ImageData
from striate.engine.checkpointer import LAST
from striate.engine.distributed.group import RankGroup, process_group
from striate.engine.distributed.rank_info import RankInfo, threads_per_rank
from striate.engine.distributed.sync_batch_norm import sync_batch_norms
from striate.engine.ema import EMA
from striate.engine.train_state import TrainState
from striate.engine.weights_io import (
    OptimizerState,
    assign_weights,
    tensors_from_bytes,
    tensors_to_bytes,
)
from striate.run import layout as names
from striate.run.manifest import data_hash
from striate.run.recipe import Recipe


@contextmanager
def join_rank_group(recipe: Recipe) -> Iterator[RankGroup | None]:
    """Join the processes that torchrun has started; yield None without torchrun.

    Raises:
        RankError: A rank is missing, died, hung or failed.
        SettingError: The device does not exist.
    """
    rank_info = RankInfo.from_environment()
    if not rank_info.launched:
        yield None
        return
    torch.set_num_threads(threads_per_rank(rank_info))
    device = devices.select_device(recipe.device)
    if device.type != "cpu":
        torch.accelerator.set_device_index(rank_info.local_rank)
    with process_group(rank_info, device) as group:
        yield group


def is_worker(group: RankGroup | None) -> bool:
    """Return whether this process is a worker; only rank 0 prints and writes files."""
    return group is not None and not group.is_main


def one_rank_at_a_time(group: RankGroup | None) -> AbstractContextManager[None]:
    """Let one rank of each machine fill the cache before the others read images."""
    return group.local_main_first() if group else nullcontext()


def sync_batch_norm(
    model: nn.Module, recipe: Recipe, group: RankGroup | None
) -> AbstractContextManager[None]:
    """Synchronize batch norm statistics over ranks if `sync_batch_norm` is set."""
    if group is None or not recipe.sync_batch_norm:
        return nullcontext()
    return sync_batch_norms(model, group)


def can_compile(recipe: Recipe, group: RankGroup | None) -> bool:
    """Return whether the model can be compiled; not with synchronized batch norm."""
    return group is None or not recipe.sync_batch_norm


def check_same_data(data: ImageData, group: RankGroup | None) -> None:
    """Check that all ranks have read the same images.

    Raises:
        RankError: A rank has read different images; the message names this rank.
    """
    if group is None:
        return
    hashes = group.all_gather_object(data_hash(data), "the hash of the images")
    differing = [rank for rank, value in enumerate(hashes) if value != hashes[0]]
    if differing:
        what = f"rank {differing[0]} has read different images than rank 0"
        fix = "put the same files at the same path on every machine"
        raise RankError(what, where=data.origin or data.name, fix=fix)


def share_folder(folder: Path | None, group: RankGroup) -> Path:
    """Return the run folder of rank 0, and check that every rank can read the folder.

    Raises:
        RankError: A rank cannot read the folder.
    """
    payload = str(folder.resolve()).encode() if folder else b""
    shared = Path(group.broadcast(payload, "the run folder").decode())
    visible = group.all_gather_object(
        names.is_output_folder(shared), "which ranks see the run folder"
    )
    if not all(visible):
        what = f"rank {visible.index(False)} cannot read the run folder"
        fix = "use --out with a folder on a shared file system"
        raise RankError(what, where=shared, fix=fix)
    return folder or shared


def share_state(
    group: RankGroup,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    ema: EMA | None = None,
) -> TrainState:
    """Broadcast weights, optimizer state, EMA and training state from rank 0.

    Returns:
        The training state of rank 0.
    """
    if group.world_size == 1:
        return state
    moments = OptimizerState(optimizer)
    first = group.is_main
    payload = tensors_to_bytes(model.state_dict()) if first else b""
    weights = group.broadcast(payload, "rank 0's weights")
    payload = tensors_to_bytes(moments.state_dict()) if first else b""
    optimizer_state = group.broadcast(payload, "rank 0's optimizer")
    payload = tensors_to_bytes(ema.state_dict()) if ema and first else b""
    averages = group.broadcast(payload, "rank 0's EMA") if ema else b""
    states = group.all_gather_object(
        state.as_dict() if first else None, "rank 0's training state"
    )
    if first:
        return state
    where = Path("rank 0")
    assign_weights(model, tensors_from_bytes(weights, where), where)
    moments.load_state_dict(tensors_from_bytes(optimizer_state, where))
    if ema:
        ema.load_state_dict(tensors_from_bytes(averages, where))
    return TrainState.from_dict(states[0])


def find_earlier_attempt(key: str, group: RankGroup | None) -> tuple[Path | None, bool]:
    """Return the run folder of an earlier attempt, and whether a checkpoint exists.

    After a failure, torchrun starts the same command again, and the run is resumed.
    """
    if group is None:
        return None, False
    folder = group.store_get(key) if group.is_main else ""
    steps = (Path(folder) / names.WEIGHTS / LAST).glob("step-*")
    attempt = folder, bool(folder) and any(steps)
    folder, has_checkpoint = group.all_gather_object(
        attempt, "whether to resume the run"
    )[0]
    return (Path(folder) if folder else None), has_checkpoint


def check_distributed(recipe: Recipe, group: RankGroup | None) -> None:
    """Raise an error if settings do not work with the number of processes.

    Raises:
        SettingError: The batch size is too small, synchronized batch norm would have
            to be compiled, or norms by layer are requested.
    """
    if recipe.compile == "on" and not can_compile(recipe, group):
        what = "synchronized batch norm cannot be compiled"
        fix = "use --compile off, or remove --sync-batch-norm"
        raise SettingError(what, where="--compile", fix=fix)
    world_size = group.world_size if group else 1
    if recipe.track_norms and world_size > 1:
        what = f"norms by layer need a single process, got {world_size} processes"
        raise SettingError(what, where="--track-norms", fix="remove --track-norms")
    needed = 2 * world_size if world_size > 1 else 1
    images = recipe.images_per_step
    if images < needed * recipe.accumulate and recipe.accumulate > 1:
        what = f"{recipe.batch_size} images per step are too few for "
        what += f"{recipe.accumulate} micro-batches of {needed} images"
        fix = f"use --batch-size {needed * recipe.accumulate} or more"
        raise SettingError(what, where="--accumulate", fix=fix)
    if images < needed:
        what = f"{recipe.batch_size} images per step are too few for "
        what += f"{world_size} processes"
        fix = f"use --batch-size {needed} or more, or fewer processes"
        raise SettingError(what, where="--batch-size", fix=fix)
