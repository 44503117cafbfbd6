"""A run of several processes: how they meet, what rank 0 hands to the others."""

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
def together(recipe: Recipe) -> Iterator[RankGroup | None]:
    """Meet the other processes that torchrun has started; None where it has not.

    Raises:
        RankError: Not all came, or one died, hung or failed.
        SettingError: There is no such device.
    """
    place = RankInfo.from_environment()
    if not place.launched:
        yield None
        return
    torch.set_num_threads(threads_per_rank(place))
    device = devices.select_device(recipe.device)
    if device.type != "cpu":
        torch.accelerator.set_device_index(place.local_rank)
    with process_group(place, device) as ranks:
        yield ranks


def follows(ranks: RankGroup | None) -> bool:
    """Say whether this process leaves speaking and writing to rank 0."""
    return ranks is not None and not ranks.is_main


def in_turn(ranks: RankGroup | None) -> AbstractContextManager[None]:
    """Let one process of each machine read first; the others then find its cache."""
    return ranks.local_main_first() if ranks else nullcontext()


def shared_norms(
    model: nn.Module, recipe: Recipe, ranks: RankGroup | None
) -> AbstractContextManager[None]:
    """Let batch norms see the whole batch, where the recipe says so."""
    if ranks is None or not recipe.sync_batch_norm:
        return nullcontext()
    return sync_batch_norms(model, ranks)


def may_compile(recipe: Recipe, ranks: RankGroup | None) -> bool:
    """Say whether the network can be compiled: not around exchanges within it."""
    return ranks is None or not recipe.sync_batch_norm


def check_data(data: ImageData, ranks: RankGroup | None) -> None:
    """Hold the images that the ranks have read against each other.

    Raises:
        RankError: They are not the same; names two ranks.
    """
    if ranks is None:
        return
    found = ranks.all_gather_object(data_hash(data), "the hash of the images")
    other = [rank for rank, theirs in enumerate(found) if theirs != found[0]]
    if other:
        what = f"rank {other[0]} reads other images than rank 0"
        fix = "give every machine the same files under the same path"
        raise RankError(what, where=data.origin or data.name, fix=fix)


def share_folder(folder: Path | None, ranks: RankGroup) -> Path:
    """Return rank 0's run folder, which every rank must see.

    Raises:
        RankError: One does not.
    """
    mine = str(folder.resolve()).encode() if folder else b""
    there = Path(ranks.broadcast(mine, "the run folder").decode())
    seen = ranks.all_gather_object(names.is_run(there), "who sees the run folder")
    if not all(seen):
        what = f"rank {seen.index(False)} does not see the run folder"
        fix = "put it where every machine sees it: --out on a shared file system"
        raise RankError(what, where=there, fix=fix)
    return folder or there


def share_state(
    ranks: RankGroup,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    at: TrainState,
    average: EMA | None = None,
) -> TrainState:
    """Give every rank the weights, moments, average and position of rank 0."""
    if ranks.world_size == 1:
        return at
    moments = OptimizerState(optimizer)
    mine = tensors_to_bytes(model.state_dict()) if ranks.is_main else b""
    theirs = tensors_to_bytes(moments.state_dict()) if ranks.is_main else b""
    means = tensors_to_bytes(average.state_dict()) if average and ranks.is_main else b""
    weights = ranks.broadcast(mine, "rank 0's weights")
    state = ranks.broadcast(theirs, "rank 0's optimizer")
    averages = ranks.broadcast(means, "rank 0's average") if average else b""
    said = ranks.all_gather_object(
        at.as_dict() if ranks.is_main else None, "rank 0's position"
    )[0]
    if ranks.is_main:
        return at
    where = Path("rank 0")
    assign_weights(model, tensors_from_bytes(weights, where), where)
    moments.load_state_dict(tensors_from_bytes(state, where))
    if average:
        average.load_state_dict(tensors_from_bytes(averages, where))
    return TrainState.from_dict(said)


def begun_before(key: str, ranks: RankGroup | None) -> tuple[Path | None, bool]:
    """Return the run folder of an earlier start by torchrun, and whether it trained.

    torchrun starts the same command again after a fault. What it began is gone on with.
    """
    if ranks is None:
        return None, False
    found = ranks.store_get(key) if ranks.is_main else ""
    learned = bool(found) and any((Path(found) / names.WEIGHTS / LAST).glob("step-*"))
    found, learned = ranks.all_gather_object(
        [found, learned], "whether the run was begun"
    )[0]
    return (Path(found) if found else None), learned


def check_together(recipe: Recipe, ranks: RankGroup | None) -> None:
    """Refuse what several processes cannot do, such as batches too small for two each.

    Raises:
        SettingError: The batch size is too small, batch norms that exchange
            statistics would have to be compiled, or norms by layer are wanted.
    """
    if recipe.compile == "on" and not may_compile(recipe, ranks):
        what = "batch norms that exchange their statistics cannot be compiled"
        fix = "use --compile off, or leave out --sync-batch-norm"
        raise SettingError(what, where="--compile", fix=fix)
    world = ranks.world_size if ranks else 1
    if recipe.track_norms and world > 1:
        what = f"norms by layer are kept in one process, and there are {world}"
        raise SettingError(what, where="--track-norms", fix="leave it out")
    needed = 2 * world if world > 1 else 1
    if recipe.images_a_step < needed * recipe.accumulate and recipe.accumulate > 1:
        what = f"{recipe.batch_size} images a step are too few for "
        what += f"{recipe.accumulate} pieces of {needed}"
        fix = f"use --batch-size {needed * recipe.accumulate} or more"
        raise SettingError(what, where="--accumulate", fix=fix)
    if recipe.images_a_step < needed:
        what = f"{recipe.batch_size} images a step are too few for {world} processes"
        fix = f"use --batch-size {needed} or more, or fewer processes"
        raise SettingError(what, where="--batch-size", fix=fix)
