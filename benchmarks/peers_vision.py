"""torchvision's Python, beside a CPU torch for which its wheels hold no operators."""

from __future__ import annotations

from types import ModuleType

import torch


def torchvision() -> ModuleType:
    """Return torchvision; only its datasets and transforms are used.

    Its operators are built for another torch and cannot be registered, so that is
    passed over while it is imported. `make twins` installs it beside our packages.
    """
    real = torch.library.register_fake
    torch.library.register_fake = lambda *words, **options: lambda function: function
    try:
        import torchvision.datasets
        import torchvision.transforms
    finally:
        torch.library.register_fake = real
    return torchvision
