"""Networks as users write them, with code that an analysis finds hard."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    """Two convolutions, global average pooling and a linear layer."""

    features = 8  # inputs of the linear layer

    def __init__(self, classes: int = 4):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(self.features, classes)

    def first(self, x):
        return F.relu(self.conv(x))

    def second(self, x):
        return self.relu(self.conv2(x))

    def head(self, x):
        return self.fc(x.mean((2, 3)))

    def forward(self, x):
        return self.head(self.second(self.first(x)))


class Branches(Plain):
    """`if` on a value of the image: another image may take another way."""

    def forward(self, x):
        h = self.first(x)
        if x.max() > 3:
            h = h * 2
        return self.head(self.second(h))


class ReadsItem(Plain):
    def forward(self, x):
        h = self.first(x)
        return self.head(self.second(h / (1 + h.mean().item())))


class AddsIntoZeros(Plain):
    def forward(self, x):
        h = self.first(x)
        out = torch.zeros(h.shape, dtype=h.dtype)
        out += h
        out += self.conv(x)
        return self.head(self.second(out))


class WritesSlices(Plain):
    def forward(self, x):
        h = self.first(x)
        out = torch.zeros(h.shape, dtype=h.dtype)
        out[:, :4] = h[:, :4]
        return self.head(self.second(out + h))


class Autocasts(Plain):
    def forward(self, x):
        h = self.first(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = self.conv2(h)
        return self.head(self.relu(h.float()))


class Windowed(Plain):
    """A constant that differs by column only."""

    def forward(self, x):
        h = self.first(x)
        return self.head(self.second(h * torch.hann_window(h.shape[-1])))


class Twice(Plain):
    """Operations that take one tensor twice."""

    features = 16

    def forward(self, x):
        h = self.first(x)
        h = self.second(h * h)
        return self.head(torch.cat([h, h], 1))


class WithConstantChannel(Plain):
    """A constant map beside the channels of the image."""

    features = 9

    def forward(self, x):
        h = self.second(self.first(x))
        line = torch.linspace(0, 1, h.shape[-1]).expand(len(h), 1, *h.shape[2:])
        return self.head(torch.cat([h, line], 1))


class Normalizes(Plain):
    def forward(self, x):
        return self.head(F.normalize(self.second(self.first(x)), dim=-1))


class Sequence(Plain):
    """The positions as a sequence."""

    def tokens(self, x):
        return self.second(self.first(x)).flatten(2).transpose(1, 2)


class Recurrent(Sequence):
    def __init__(self, kind=nn.RNN):
        super().__init__()
        self.rnn = kind(8, 8, batch_first=True)

    def forward(self, x):
        return self.fc(self.rnn(self.tokens(x))[0][:, -1])


class Attention(Sequence):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        h = self.tokens(x)
        return self.fc((h + self.attn(h, h, h)[0]).mean(1))


class Encoder(Sequence):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.fc(self.encoder(self.tokens(x)).mean(1))


class FrozenBackbone(Plain):
    def forward(self, x):
        with torch.no_grad():
            h = self.second(self.first(x))
        return self.head(h)


class NoGradients(Plain):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class InferenceBackbone(Plain):
    @torch.inference_mode()
    def backbone(self, x):
        return self.second(self.first(x))

    def forward(self, x):
        return self.head(self.backbone(x).clone())


class Detached(Plain):
    def forward(self, x):
        return self.head(self.second(self.first(x)).detach())


class LogitsAndMaps(NamedTuple):
    logits: torch.Tensor
    maps: torch.Tensor


class Returns(Plain):
    """The logits in a container, always or only while training."""

    def __init__(self, form: str, only_training: bool = False):
        super().__init__()
        self.form, self.only_training = form, only_training

    def forward(self, x):
        h = self.second(self.first(x))
        logits = self.head(h)
        if self.only_training and not self.training:
            return logits
        return {
            "tensor": lambda: logits,
            "tuple": lambda: (logits, h),
            "list": lambda: [logits, logits * 2],
            "dict": lambda: {"pooled": h.mean((2, 3)), "logits": logits},
            "only matrix": lambda: {"maps": h, "scores": logits},
            "named tuple": lambda: LogitsAndMaps(logits, h),
            "unclear": lambda: {"a": logits, "b": logits * 2},
        }[self.form]()


class Transformer(nn.Module):
    """A vision transformer of three blocks, with a class token or mean pooling."""

    def __init__(self, class_token: bool = True, side: int = 16, classes: int = 4):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        count = (side // 4) ** 2 + class_token
        self.token = nn.Parameter(torch.randn(1, 1, 16)) if class_token else None
        self.position = nn.Parameter(torch.randn(1, count, 16) * 0.1)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
            for _ in range(3)
        )
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        h = self.patch(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            h = torch.cat([self.token.expand(len(h), -1, -1), h], 1)
        h = h + self.position
        for block in self.blocks:
            h = block(h)
        return self.fc(h[:, 0] if self.token is not None else h.mean(1))


class ChannelsLast(nn.Module):
    """Height and width before the channels, as in Swin transformers."""

    def __init__(self, classes: int = 4):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 16, 2, stride=2)
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.last = nn.LayerNorm(16)
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        h = self.patch(x).permute(0, 2, 3, 1)
        h = h + self.mlp(self.norm(h))
        return self.fc(self.last(h).mean((1, 2)))


EXPLAINABLE = (
    *(Branches, ReadsItem, AddsIntoZeros, WritesSlices, Autocasts, Windowed, Twice),
    *(WithConstantChannel, Normalizes, Recurrent, Attention, Encoder),
    *(FrozenBackbone, NoGradients, Detached, Transformer, ChannelsLast),
)
