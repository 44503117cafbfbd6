"""`st.train` in a user's process leaves global settings and the user's model alone."""

import random
from threading import Event

import numpy as np
import torch
from torch import nn

import striate as st
from striate.core import malloc


def flushes_denormals() -> bool:
    return float(torch.tensor([1e-40]) * 1.0) == 0.0


def global_settings() -> tuple:
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        flushes_denormals(),
        torch.random.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )


def test_train_restores_global_settings(monkeypatch):
    monkeypatch.setattr(malloc, "_reuse", Event())
    data = st.load_data("digits", fraction=0.1, cache="off")
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
    )
    forwards = {name: module.forward for name, module in model.named_modules()}
    torch.manual_seed(3)
    before = global_settings()
    st.train(model, data, epochs=1, quiet=True)
    assert global_settings() == before
    assert not malloc._reuse.is_set()
    for name, module in model.named_modules():
        assert "forward" not in vars(module), name
        assert module.forward == forwards[name]
        assert not module._forward_hooks, name
        assert not module._forward_pre_hooks, name
