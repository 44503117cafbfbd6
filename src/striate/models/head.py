"""Replace the head of a network: one dense layer becomes two."""

from __future__ import annotations

import re

import torch
from torch import nn

from striate.core.derive_seed import derive_seed
from striate.core.errors import SettingError

AUXILIARY = r"aux\d*\."  # names of the tensors of auxiliary heads


def last_dense(model: nn.Module) -> str | None:
    """Return the name of the last layer if it is dense, else None.

    The last layer is the last one with tensors in definition order, without auxiliary
    heads (`aux1`, `aux2`). In the paper's LeNet-5, this layer is not dense.

    Example:
        >>> last_dense(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
        '1'
    """
    tensors = [name for name in model.state_dict() if not re.match(AUXILIARY, name)]
    if not tensors:
        return None
    last = tensors[-1].rpartition(".")[0]
    return last if isinstance(model.get_submodule(last), nn.Linear) else None


def deepen(model: nn.Module, units: int, seed: int = 0) -> None:
    """Replace the last dense layer, in place, by new layers: dense, ReLU, dense.

    Raises:
        SettingError: The network's last layer is not dense.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> deepen(model, 3)
        >>> [type(layer).__name__ for layer in model[1]], model[1][2].out_features
        (['Linear', 'ReLU', 'Linear'], 2)
    """
    name = last_dense(model)
    old = model.get_submodule(name) if name else None
    if name is None or not isinstance(old, nn.Linear):
        what = "a hidden layer needs a network whose last layer is dense"
        raise SettingError(what, where="--head-hidden", fix="leave --head-hidden out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "hidden"))
        first = nn.Linear(old.in_features, units)
        last = nn.Linear(units, old.out_features, bias=old.bias is not None)
    above, _, key = name.rpartition(".")
    setattr(model.get_submodule(above), key, nn.Sequential(first, nn.ReLU(), last))
