"""Random networks for property tests: all kinds of windows, branches and reshapes."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn


class Branches(nn.Module):
    """Branches of one input, added or concatenated where their sides agree."""

    def __init__(self, branches, add):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.add = add

    def forward(self, x):
        outs = [branch(x) for branch in self.branches]
        height = min(out.shape[2] for out in outs)
        width = min(out.shape[3] for out in outs)
        outs = [out[:, :, :height, :width] for out in outs]
        if not self.add:
            return torch.cat(outs, dim=1)
        total = outs[0]
        for out in outs[1:]:
            total = total + out
        return total


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def shuffle(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def channels_last_dense(weight):
    def apply(x):
        return F.linear(x.permute(0, 2, 3, 1), weight.to(x.dtype)).permute(0, 3, 1, 2)

    return apply


def gate(x):
    return x * x.mean((2, 3), keepdim=True)


def split(x):
    left, right = x.chunk(2, dim=1)
    return torch.cat([right, left], 1)


def window(draw):
    kernel, dilation = draw.choice([1, 2, 3, 3, 5]), draw.choice([1, 1, 2, 3])
    return kernel, draw.choice([1, 1, 2, 3]), draw.randint(0, 3), dilation


def layer(draw: random.Random, depth: int) -> nn.Module:
    """Draw one layer of four channels in and out."""
    kernel, stride, pad, dilation = window(draw)
    rows = window(draw)
    half = min(pad, kernel // 2)
    made = {
        "conv": lambda: nn.Conv2d(4, 4, kernel, stride, pad, dilation),
        "grouped": lambda: nn.Conv2d(4, 4, kernel, stride, pad, dilation, groups=2),
        "oblong": lambda: nn.Conv2d(4, 4, *zip(rows, window(draw), strict=True)),
        "lopsided": lambda: nn.Sequential(
            nn.ZeroPad2d(tuple(draw.randint(0, 3) for _ in range(4))),
            nn.Conv2d(4, 4, kernel, stride),
        ),
        "same": lambda: nn.Conv2d(4, 4, kernel, padding="same", dilation=dilation),
        "average": lambda: nn.AvgPool2d(kernel, stride, half),
        "ceil": lambda: nn.AvgPool2d(kernel, stride, half, ceil_mode=True),
        "adaptive": lambda: nn.AdaptiveAvgPool2d((draw.randint(2, 7), 5)),
        "transposed": lambda: nn.ConvTranspose2d(
            4, 4, kernel, stride, min(pad, 1), dilation=dilation
        ),
        "nearest": lambda: nn.Upsample(scale_factor=2),
        "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
        "aligned": lambda: nn.Upsample(size=9, mode="bilinear", align_corners=True),
        "pixels": lambda: nn.Sequential(nn.Conv2d(4, 16, 1), nn.PixelShuffle(2)),
        "blocks": lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 4, 1)),
        "shuffle": lambda: Apply(shuffle),
        "split": lambda: Apply(split),
        "gate": lambda: Apply(gate),
        "crop": lambda: Apply(lambda x: x[:, :, 1:, ::2]),
        "dense": lambda: Apply(channels_last_dense(torch.ones(4, 4))),
        "norm": lambda: nn.BatchNorm2d(4),
        "relu": lambda: nn.ReLU(),
        "branches": lambda: branches(draw, depth),
    }
    names = list(made) if depth else [name for name in made if name != "branches"]
    return made[draw.choice(names)]()


def branches(draw: random.Random, depth: int) -> nn.Module:
    add = draw.random() < 0.5
    inner = [chain(draw, draw.randint(0, 2), depth - 1) for _ in range(2)]
    joined = Branches(inner, add)
    return joined if add else nn.Sequential(joined, nn.Conv2d(8, 4, 1))


def chain(draw: random.Random, count: int, depth: int = 2) -> nn.Sequential:
    """Draw a chain of layers."""
    return nn.Sequential(*(layer(draw, depth) for _ in range(count)))
