"""Keep modules in evaluation mode while the network trains."""

from __future__ import annotations

from types import MethodType

from torch import nn


def freeze_mode(module: nn.Module) -> None:
    """Keep a module in evaluation mode, even after `model.train()`.

    Child modules follow `train()` as usual. A copy of the module also stays frozen.

    Example:
        >>> outer = nn.Sequential(nn.Dropout())
        >>> freeze_mode(outer)
        >>> _ = outer.eval().train()
        >>> outer.training, outer[0].training
        (False, True)
    """
    module.training = False
    module.__dict__["train"] = MethodType(_frozen_train, module)


def has_frozen_mode(module: nn.Module) -> bool:
    """Return whether `freeze_mode` was applied to a module.

    Example:
        >>> has_frozen_mode(nn.BatchNorm2d(2))
        False
    """
    return "train" in module.__dict__


def unfreeze_mode(module: nn.Module, training: bool) -> None:
    """Undo `freeze_mode`, so that the module follows `train()` again.

    Example:
        >>> norm = nn.BatchNorm2d(2)
        >>> freeze_mode(norm)
        >>> unfreeze_mode(norm, training=True)
        >>> norm.training, has_frozen_mode(norm)
        (True, False)
    """
    if module.__dict__.pop("train", None) is not None:
        module.train(training)


def _frozen_train(self: nn.Module, mode: bool = True) -> nn.Module:
    for child in self.children():
        child.train(mode)
    self.training = False
    return self
