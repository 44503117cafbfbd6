"""Networks that change themselves, hide tensors, or come from torch's converters."""

from __future__ import annotations

import functools
import random
from collections import OrderedDict, defaultdict, deque

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

GRIDS: dict[tuple[int, ...], torch.Tensor] = {}
LISTED: list[torch.Tensor] = []
LAST = None
CALLS = 0


@functools.lru_cache(maxsize=8)
def grid(height: int, width: int) -> torch.Tensor:
    return torch.ones(height, width) * 0.5


class Body(nn.Module):
    """A small network; `before` may do odd things with the image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def before(self, x):
        return x

    def after(self, x):
        return x

    def forward(self, x):
        x = self.after(F.relu(self.norm(self.conv(self.before(x)))))
        return self.fc(x.mean((2, 3)))


def odd(before=None, after=None, setup=None):
    """Return a constructor of a `Body` with other methods and more attributes."""

    def build():
        parts = {"before": before, "after": after}
        cls = type("Odd", (Body,), {k: f for k, f in parts.items() if f is not None})
        cls.__module__ = __name__
        model = cls()
        if setup is not None:
            setup(model)
        return model

    return build


def in_dict(self, x):
    if x.shape not in self.cache:
        self.cache[x.shape] = torch.ones_like(x)
    return x * self.cache[x.shape]


def in_list(self, x):
    self.cache.append(x)
    return x


def in_attribute(self, x):
    self.last, self.calls = x, getattr(self, "calls", 0) + 1
    return x


def in_place(self, x):
    self.mask.add_(1.0)
    return x + self.mask.mean() * 0


def in_lru(self, x):
    return x * grid(*x.shape[2:])


def in_global_dict(self, x):
    if tuple(x.shape) not in GRIDS:
        GRIDS[tuple(x.shape)] = torch.ones_like(x)
    return x * GRIDS[tuple(x.shape)]


def in_global_list(self, x):
    LISTED.append(x)
    return x


def in_global(self, x):
    global LAST, CALLS
    LAST, CALLS = x, CALLS + 1
    return x


def in_class(self, x):
    type(self).shared = x
    type(self).table.setdefault(x.shape, x)
    return x


def in_default(self, x, cache={}):  # noqa: B006 - what is tried
    cache.setdefault(x.shape, torch.ones_like(x))
    return x * cache[x.shape]


def in_closure():
    cache = {}
    count = 0

    def before(self, x):
        nonlocal count
        count += 1
        cache.setdefault(x.shape, torch.ones_like(x))
        return x * cache[x.shape]

    return odd(before)()


class Memo:
    """A plain object that keeps the last tensor."""

    def __init__(self):
        self.tensors = []

    def add(self, x):
        self.tensors.append(x)
        return x


class Slots:
    __slots__ = ("last",)

    def __init__(self):
        self.last = None


def in_object(self, x):
    return self.memo.add(x)


def in_slots(self, x):
    self.memo.last = x
    return x


def new_buffer(self, x):
    self.register_buffer("fresh", torch.zeros(1))
    return x + self.fresh


def new_parameter(self, x):
    self.extra = nn.Parameter(torch.zeros(1))
    return x + self.extra


def new_module(self, x):
    self.child = nn.Identity()
    return self.child(x)


def clamps_weights(self, x):
    with torch.no_grad():
        self.conv.weight.clamp_(-0.05, 0.05)
    return x


def renormed(self, x):
    self.conv.weight.data = torch.renorm(self.conv.weight.data, 2, 0, 0.1)
    return x


def draws(self, x):
    random.random()
    np.random.rand()
    return x + 0 * torch.rand(1)


def draws_own(self, x):
    noise = torch.rand(1, generator=self.generator)
    return x + 0 * (noise + self.numpy.random() + self.python.random())


def trains_itself(self, x):
    self.norm.train()
    return x


def adds_hook(self, x):
    self.conv.register_forward_hook(lambda module, inputs, output: output)
    return x


def freezes(self, x):
    self.conv.weight.requires_grad_(not self.conv.weight.requires_grad)
    return x


def numpy_state(self, x):
    self.array += 1
    return x


def raises(self, x):
    self.calls = x
    raise RuntimeError("never mind")


def branches(self, x):
    self.looked = True
    return x if x.sum() > -1e9 else -x


def with_item(self, x):
    self.value = x.max().item()
    return x


def containers(self, x):
    self.table[x.dim()].append(x)
    self.queue.append(x)
    self.seen.add(x.dim())
    self.ordered["last"] = x
    return x


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.MultiheadAttention(3, 1, batch_first=True)
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        return self.fc(self.mix(x, x, x)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, **settings):
        super().__init__()
        self.rnn = kind(24, 5, **settings)
        self.fc = nn.Linear(5 * (2 if self.rnn.bidirectional else 1), 3)

    def forward(self, x):
        out, self.state = self.rnn(x.permute(3, 0, 1, 2).flatten(2))
        return self.fc(out[-1])


class Several(Body):
    def forward(self, x):
        logits = super().forward(x)
        return {"logits": logits, "features": x}


class Stateful(Body):
    """A running mean that changes in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def before(self, x):
        self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)).view(-1, 1, 1) * 0.1)
        self.mean = self.mean + 0
        return x - self.mean


def tied():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Flatten())
    model[1].weight = model[0].weight
    return model.append(nn.LazyLinear(3))


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    ).append(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3)))


def hooked():
    model, outputs = plain(), []
    model[0].register_forward_hook(lambda module, inputs, out: outputs.append(out))
    model.outputs = outputs
    return model


def normed(norm):
    model = plain()
    model[0] = norm(model[0])
    return model


def frozen_part():
    model = plain()
    model[0].weight.requires_grad_(False)
    model[1].eval()
    return model


def quantized():
    kinds, dtype = {nn.Linear}, torch.qint8
    return torch.ao.quantization.quantize_dynamic(plain(), kinds, dtype=dtype)


def converted(how):
    image = torch.rand(2, 3, 8, 8)
    if how == "script":
        return torch.jit.script(plain())
    if how == "trace":
        return torch.jit.trace(plain().eval(), image)
    if how == "export":
        return torch.export.export(plain().eval(), (image,)).module()
    return torch.compile(plain(), backend="eager")


def set_up(**values):
    def setup(model):
        for name, make in values.items():
            setattr(model, name, make())

    return setup


def class_table(model):
    type(model).table = {}


CONVERTED = {
    how: functools.partial(converted, how)
    for how in ("script", "trace", "export", "compile")
}
ODD_MODULES = {
    "plain": plain,
    "dict cache": odd(in_dict, setup=set_up(cache=dict)),
    "list cache": odd(in_list, setup=set_up(cache=list)),
    "attribute": odd(in_attribute),
    "tensor in place": odd(in_place, setup=set_up(mask=lambda: torch.zeros(3))),
    "lru_cache": odd(in_lru),
    "global dict": odd(in_global_dict),
    "global list": odd(in_global_list),
    "global variable": odd(in_global),
    "class attribute": odd(in_class, setup=class_table),
    "default argument": odd(in_default),
    "closure": in_closure,
    "plain object": odd(in_object, setup=set_up(memo=Memo)),
    "slots": odd(in_slots, setup=set_up(memo=Slots)),
    "containers": odd(
        containers,
        setup=set_up(
            table=lambda: defaultdict(list), queue=deque, seen=set, ordered=OrderedDict
        ),
    ),
    "new buffer": odd(new_buffer),
    "new parameter": odd(new_parameter),
    "new module": odd(new_module),
    "clamps weights": odd(clamps_weights),
    "renormed weights": odd(renormed),
    "random numbers": odd(draws),
    "own generators": odd(
        draws_own,
        setup=set_up(
            generator=torch.Generator,
            numpy=lambda: np.random.default_rng(0),
            python=lambda: random.Random(0),
        ),
    ),
    "trains itself": odd(trains_itself),
    "adds a hook": odd(adds_hook),
    "toggles gradients": odd(freezes),
    "numpy array": odd(numpy_state, setup=set_up(array=lambda: np.zeros(2))),
    "raises": odd(after=raises),
    "branches on values": odd(branches),
    "item": odd(with_item),
    "cache after": odd(after=in_attribute),
    "attention": Attention,
    "lstm": Recurrent,
    "two-way lstm": functools.partial(Recurrent, bidirectional=True, num_layers=2),
    "gru": functools.partial(Recurrent, nn.GRU),
    "rnn": functools.partial(Recurrent, nn.RNN),
    "several outputs": Several,
    "stateful": Stateful,
    "tied and lazy": tied,
    "lazy": lambda: nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten(), nn.LazyLinear(3)),
    "half": lambda: plain().half(),
    "double": lambda: plain().double(),
    "bfloat16": lambda: plain().bfloat16(),
    "meta": lambda: plain().to("meta"),
    "with a hook": hooked,
    "weight norm": functools.partial(normed, parametrizations.weight_norm),
    "spectral norm": functools.partial(normed, parametrizations.spectral_norm),
    "frozen": frozen_part,
    "evaluation mode": lambda: plain().eval(),
    "quantized": quantized,
    "wrong size": lambda: nn.Sequential(nn.Flatten(), nn.Linear(7, 3)),
    "two inputs": lambda: nn.Bilinear(2, 2, 1),
    "no weights": lambda: nn.Sequential(nn.AvgPool2d(2), nn.Flatten()),
    "instance norm": lambda: nn.Sequential(
        nn.InstanceNorm2d(3, track_running_stats=True), nn.Flatten()
    ),
    "train raises": odd(),
}
