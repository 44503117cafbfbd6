"""Three networks written by other people, and what must not change in them."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class InPlace(nn.Module):
    """In-place activations, a frozen stem, batch norm: a net of the model hubs."""

    def __init__(self, channels: int = 3, classes: int = 4):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
        )
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU6(inplace=True)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(12, classes)
        for weight in self.stem.parameters():
            weight.requires_grad_(False)

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.fc(self.drop(torch.flatten(self.pool(x), 1)))


class Reused(nn.Module):
    """One activation and one convolution that run several times; a shortcut."""

    def __init__(self, channels: int = 3, classes: int = 4):
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(6 * 4, classes)

    def forward(self, x):
        x = self.relu(self.first(x))
        x = self.relu(self.again(x) + x)
        x = self.relu(self.again(x) + x)
        return self.fc(F.adaptive_max_pool2d(x, 2).flatten(1))


class Functional(nn.Module):
    """Everything but the weights is a function call; two branches, concatenated."""

    def __init__(self, channels: int = 3, classes: int = 4):
        super().__init__()
        self.left = nn.Conv2d(channels, 5, 3, padding=1)
        self.right = nn.Conv2d(channels, 4, 5, padding=2, dilation=1)
        self.norm = nn.BatchNorm2d(9)
        self.top = nn.Conv2d(9, 10, 3)
        self.head = nn.Linear(10, classes)

    def forward(self, x):
        x = torch.cat([F.leaky_relu(self.left(x)), F.silu(self.right(x))], 1)
        x = F.max_pool2d(F.relu_(self.norm(x)), 2)
        return self.head(torch.relu(self.top(x)).mean((2, 3)))


STRANGERS = (InPlace, Reused, Functional)


def stranger(kind, channels: int = 3, classes: int = 4):
    """A network in training mode, with uneven batch-norm statistics."""
    torch.manual_seed(5)
    model = kind(channels, classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_()
    return model.train()


class Unchanged:
    """Compares everything an analysis must leave as it was."""

    def __init__(self, model: nn.Module):
        self.model = model
        for weight in model.parameters():
            if weight.requires_grad:
                weight.grad = torch.full_like(weight, 0.5)

    def _state(self):
        model = self.model
        return {
            "modes": [m.training for m in model.modules()],
            "hooks": [
                len(table)
                for m in model.modules()
                for table in (
                    m._forward_hooks,
                    m._forward_pre_hooks,
                    m._backward_hooks,
                    m._backward_pre_hooks,
                )
            ],
            "frozen": [p.requires_grad for p in model.parameters()],
            "grads": [
                None if p.grad is None else p.grad.sum().item()
                for p in model.parameters()
            ],
            "weights": [
                t.detach().clone() for t in (*model.parameters(), *model.buffers())
            ],
            "names": [name for name, _ in model.named_modules()],
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state()[1].copy(),
            "python": random.getstate(),
            "gradients": torch.is_grad_enabled(),
        }

    def __enter__(self):
        self.before = self._state()
        return self

    def __exit__(self, kind, error, trace):
        after = self._state()
        for name, was in self.before.items():
            now = after[name]
            if name == "weights":
                assert all(torch.equal(a, b) for a, b in zip(was, now, strict=True))
            elif name == "torch":
                assert torch.equal(was, now)
            elif name == "numpy":
                assert (was == now).all()
            else:
                assert was == now, name
