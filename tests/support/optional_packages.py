"""Skips for optional packages, which only some environments have (`make twins`)."""

from __future__ import annotations

import pytest
import torch


def imported(name: str):
    """Return a package, or have the test skipped.

    torchvision's wheels are built for CUDA; beside a CPU torch their compiled part does
    not load, and the import would fail where fake versions of its operators are
    registered. They are passed over: no network here uses those operators.
    """
    with pytest.MonkeyPatch.context() as patch:
        pass_over = lambda *_args, **_settings: lambda function: function  # noqa: E731
        patch.setattr(torch.library, "register_fake", pass_over)
        reason = f"{name} is not installed (make twins)"
        return pytest.importorskip(name, reason=reason)
