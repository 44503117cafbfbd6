"""Modules that stay in evaluation mode, each on its own, in every loop."""

from __future__ import annotations

from types import MethodType

from torch import nn


def hold(module: nn.Module) -> None:
    """Let a module keep its running statistics whatever `model.train()` says.

    What lies within it goes on as it was told. A copy of a held module is held.

    Example:
        >>> outer = nn.Sequential(nn.Dropout())
        >>> hold(outer)
        >>> _ = outer.eval().train()
        >>> outer.training, outer[0].training
        (False, True)
    """
    module.training = False
    module.__dict__["train"] = MethodType(_stay, module)


def held(module: nn.Module) -> bool:
    """Say whether a module is held.

    Example:
        >>> held(nn.BatchNorm2d(2))
        False
    """
    return "train" in module.__dict__


def release(module: nn.Module, training: bool) -> None:
    """Let a held module go on, in the mode its network is in; others stay.

    Example:
        >>> norm = nn.BatchNorm2d(2)
        >>> hold(norm)
        >>> release(norm, training=True)
        >>> norm.training, held(norm)
        (True, False)
    """
    if module.__dict__.pop("train", None) is not None:
        module.train(training)


def _stay(self: nn.Module, mode: bool = True) -> nn.Module:
    for child in self.children():
        child.train(mode)
    self.training = False
    return self
