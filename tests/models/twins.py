"""torchvision as a witness: only its Python is needed, its compiled part is not.

Its wheels are built for CUDA; beside a CPU torch their library does not load, and
importing would fail where fake versions of the missing operators are registered.
Those registrations are passed over during the import; no network uses the operators.
"""

from contextlib import contextmanager

import pytest
import torch


@contextmanager
def _without_fakes():
    real = torch.library.register_fake
    torch.library.register_fake = lambda *_a, **_k: lambda function: function
    try:
        yield
    finally:
        torch.library.register_fake = real


def models():
    """Return `torchvision.models`, or skip."""
    with _without_fakes():
        reason = "torchvision is absent (make twins)"
        pytest.importorskip("torchvision", reason=reason)
        from torchvision import models

        return models
