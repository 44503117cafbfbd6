"""Check that the processes of a distributed run have equal weights."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from striate.core.errors import RankError
from striate.engine.distributed.group import RankGroup


def check_equal_weights(model: nn.Module, group: RankGroup) -> None:
    """Check that all ranks have equal weights and buffers."""
    if not group.is_distributed:
        return
    own = {name: _digest(tensor) for name, tensor in model.state_dict().items()}
    hashes = group.all_gather_object(own, "the hashes of the weights")
    for name in own:
        other = [rank for rank, h in enumerate(hashes) if h[name] != own[name]]
        if other:
            what = f"the weights of the ranks differ, first in {name}"
            fix = "give every rank the same torch, processor type and settings"
            where = f"rank {group.rank} and rank {other[0]}"
            raise RankError(what, where=where, fix=fix)


def _digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(data.numpy().data, digest_size=8).hexdigest()
