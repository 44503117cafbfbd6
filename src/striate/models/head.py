"""The head of a network: its last dense layer, or a small network in its place."""

from __future__ import annotations

import torch
from torch import nn

from striate.core.errors import SettingError
from striate.core.seeds import derive_seed


def last_dense(model: nn.Module) -> str | None:
    """Return the name of the dense layer that a network ends in, or None.

    The last in the order of definition, auxiliary heads (`aux`) aside; None where
    something else has the last word, such as LeNet-5's distances.

    Example:
        >>> last_dense(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
        '1'
    """
    tensors = [name for name in model.state_dict() if not name.startswith("aux.")]
    if not tensors:
        return None
    last = tensors[-1].rpartition(".")[0]
    return last if isinstance(model.get_submodule(last), nn.Linear) else None


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
        raise SettingError(what, where="--head-hidden", fix="leave --head-hidden out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "hidden"))
        first = nn.Linear(old.in_features, units)
        last = nn.Linear(units, old.out_features, bias=old.bias is not None)
    above, _, key = name.rpartition(".")
    setattr(model.get_submodule(above), key, nn.Sequential(first, nn.ReLU(), last))
