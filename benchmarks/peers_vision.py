"""Import torchvision without its compiled operators, which need another torch build."""

from __future__ import annotations

from types import ModuleType

import torch


def torchvision() -> ModuleType:
    """Return the torchvision module, of which only datasets and transforms can be used.

    torchvision's operators are built for another torch and cannot be registered, so the
    registration is skipped. `make twins` installs torchvision.
    """
    real = torch.library.register_fake
    torch.library.register_fake = lambda *words, **options: lambda function: function
    try:
        import torchvision.datasets
        import torchvision.transforms
    finally:
        torch.library.register_fake = real
    return torchvision
