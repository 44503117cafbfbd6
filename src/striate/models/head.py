"""The head of a network: its last dense layer, or a small network in its place."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from striate.core.errors import SettingError
from striate.core.seeds import derive


def last_dense(model: nn.Module) -> str | None:
    """Return the name of the dense layer that a network ends in, or None.

    The last in the order of definition, auxiliary heads (`aux`) aside; None where
    something else has the last word, such as LeNet-5's distances.

    Example:
        >>> last_dense(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
        '1'
    """
    own = [
        name
        for name, module in model.named_modules()
        if not name.startswith("aux.") and _holds(module)
    ]
    dense = own and isinstance(model.get_submodule(own[-1]), nn.Linear)
    return own[-1] if dense else None


def _holds(module: nn.Module) -> bool:
    mine = chain(module.parameters(recurse=False), module.buffers(recurse=False))
    return any(True for _ in mine)


def deepen(model: nn.Module, units: int, seed: int = 0) -> None:
    """Put a hidden layer before the classes, in place: dense, ReLU, dense, all new.

    Args:
        model: Any network whose last dense layer gives the classes' scores.
        units: Of the hidden layer.
        seed: Its first weights are a function of it.

    Raises:
        SettingError: The network does not end in a dense layer.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> deepen(model, 3)
        >>> [type(layer).__name__ for layer in model[1]], model[1][2].out_features
        (['Linear', 'ReLU', 'Linear'], 2)
    """
    name = last_dense(model)
    old = model.get_submodule(name) if name else None
    if name is None or not isinstance(old, nn.Linear):
        what = "a hidden layer goes before a dense one, and this network ends in none"
        raise SettingError(what, where="--hidden", fix="leave --hidden out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "hidden"))
        first = nn.Linear(old.in_features, units)
        last = nn.Linear(units, old.out_features, bias=old.bias is not None)
    above, _, key = name.rpartition(".")
    setattr(model.get_submodule(above), key, nn.Sequential(first, nn.ReLU(), last))
