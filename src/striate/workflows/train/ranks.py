"""Distributed training: join the processes, share the state of rank 0, run checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from striate.core import device as devices
from striate.core.errors import RankError, SettingError
from striate.core.format import count_text
from striate.data.image_data import ImageData
from striate.engine.checkpointer import LAST
from striate.engine.config import RuntimeConfig
from striate.engine.distributed.group import ONE_PROCESS, RankGroup, join_process_group
from striate.engine.distributed.rank_info import RankInfo, threads_per_rank
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
from striate.run.recipe import TrainConfig


@contextmanager
def join_rank_group(runtime: RuntimeConfig) -> Iterator[RankGroup]:
    """Join the rank group of torchrun; without torchrun, use a group of one process.

    Raises:
        RankError: A rank did not start, died, was stopped, failed or does not answer,
            or it runs another version of striate or torch.
        SettingError: There is no such device.
    """
    rank_info = RankInfo.from_environment()
    if not rank_info.launched:
        yield ONE_PROCESS
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(threads_per_rank(rank_info))
    device = devices.select_device(runtime.device)
    if device.type != "cpu":
        torch.accelerator.set_device_index(rank_info.local_rank)
    with join_process_group(rank_info, device, runtime.rank_timeout) as group:
        _check_same_version(group)
        yield group
    torch.set_num_threads(threads)


def _check_same_version(group: RankGroup) -> None:
    own = f"striate {version('striate')} with torch {torch.__version__}"
    versions = group.all_gather_object(own, "the versions")
    for rank, other in enumerate(versions):
        if other != versions[0]:
            what = f"rank {rank} runs {other}, and rank 0 runs {versions[0]}"
            fix = "install the same versions on every machine"
            raise RankError(what, where=f"rank {group.rank}", fix=fix)


@contextmanager
def sync_batch_norm(
    model: nn.Module, runtime: RuntimeConfig, group: RankGroup
) -> Iterator[None]:
    """Use SyncBatchNorm inside the context if it is enabled; restore BatchNorm after.

    Weights and running statistics are shared with the replaced layers.
    """
    norms = {}
    if runtime.sync_batch_norm and group.is_distributed:
        modules = model.named_modules()
        norms = {name: m for name, m in modules if isinstance(m, _BatchNorm)}
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for name, norm in norms.items():
            model.set_submodule(name, norm)


def can_compile(runtime: RuntimeConfig, group: RankGroup) -> bool:
    """Return whether the model can be compiled: not with synchronized batch norm."""
    return not (group.is_distributed and runtime.sync_batch_norm)


def check_same_data(data: ImageData, group: RankGroup) -> None:
    """Check that all ranks have read the same images."""
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
    shared = Path(group.broadcast(str((folder or Path()).resolve()), "the run folder"))
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
    if not group.is_distributed:
        return state
    moments = OptimizerState(optimizer)
    tensors = {
        "weights": tensors_to_bytes(model.state_dict()),
        "optimizer": tensors_to_bytes(moments.state_dict()),
        "ema": tensors_to_bytes(ema.state_dict()) if ema else b"",
    }
    values = group.broadcast((tensors, state.as_dict()), "the training state of rank 0")
    if group.is_main:
        return state
    tensors, where = values[0], Path("rank 0")
    assign_weights(model, tensors_from_bytes(tensors["weights"], where), where)
    moments.load_state_dict(tensors_from_bytes(tensors["optimizer"], where))
    if ema:
        ema.load_state_dict(tensors_from_bytes(tensors["ema"], where))
    return TrainState.from_dict(values[1])


def find_earlier_attempt(key: str, group: RankGroup) -> tuple[Path | None, bool]:
    """Return the run folder of a failed torchrun attempt, and if it has a checkpoint.

    After a failure, torchrun starts the same command again, and the run is resumed.
    """
    folder = group.store_get(key) if group.is_main else ""
    steps = (Path(folder) / names.WEIGHTS / LAST).glob("step-*")
    attempt = folder, bool(folder) and any(steps)
    folder, has_checkpoint = group.broadcast(attempt, "whether to resume the run")
    return (Path(folder) if folder else None), has_checkpoint


def check_distributed(config: TrainConfig, group: RankGroup) -> None:
    """Raise an error for settings that distributed training does not support."""
    if config.sync_batch_norm and devices.select_device(config.device).type == "cpu":
        what = "synchronized batch norm needs GPUs: torch has none for the CPU"
        raise SettingError(what, where="--sync-batch-norm", fix="leave it out")
    if config.compile == "on" and not can_compile(config, group):
        what = "synchronized batch norm cannot be compiled"
        fix = "use --compile off, or remove --sync-batch-norm"
        raise SettingError(what, where="--compile", fix=fix)
    world_size = group.world_size
    if config.track_norms and world_size > 1:
        what = (
            "norms by layer need a single process, got "
            f"{count_text(world_size, 'process', 'processes')}"
        )
        raise SettingError(what, where="--track-norms", fix="remove --track-norms")
    needed = 2 * world_size if world_size > 1 else 1
    images = config.images_per_step
    if images < needed * config.accumulate and config.accumulate > 1:
        what = f"--batch-size {config.batch_size} is too small for "
        what += f"{config.accumulate} micro-batches of {count_text(needed, 'image')}"
        fix = f"use --batch-size {needed * config.accumulate} or more"
        raise SettingError(what, where="--accumulate", fix=fix)
    if images < needed:
        what = f"--batch-size {config.batch_size} is too small for "
        what += count_text(world_size, "process", "processes")
        fix = f"use --batch-size {needed} or more, or fewer processes"
        raise SettingError(what, where="--batch-size", fix=fix)
