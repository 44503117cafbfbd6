"""Chains of three activations, plain and residual, trained alike and looked at."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.device import flushed_denormals
from striate.core.errors import NonFiniteError, SettingError
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.data.subset import Subset
from striate.engine.step import train_step
from striate.interpret.depth.layer_profile import depth_profile, rate
from striate.interpret.depth.snapshots import Snapshot, due, reach
from striate.workflows.explain.depth.deep_chain import (
    ACTIVATIONS,
    LARGEST,
    Design,
    chain,
)

RATES = (1.0, 0.3, 0.1, 0.03)  # each chain gets the one that serves it best
MOMENTUM = 0.9
BATCH = 64
IMAGES = 2000  # learned from, and judged by, at most
STEPS = 240
_TAIL = 0.1  # of the steps, whose mean cost decides between rates

Batch = tuple[Tensor, Tensor]
Told = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Course:
    """How one chain began and learned.

    Args:
        design: What it is.
        lr: The learning rate that served it best.
        snapshots: Its layers from initialization on.
        costs: Of every step, in nats.
        accuracy: Of validation images, at the end.
    """

    design: Design
    lr: float
    snapshots: tuple[Snapshot, ...]
    costs: tuple[float, ...]
    accuracy: float

    @property
    def factor(self) -> float:
        """Return what one layer makes of the gradient, at initialization."""
        return rate(self.snapshots[0].levels)

    @property
    def first(self) -> float:
        """Return the first layer's gradient as a share of the last's, likewise."""
        return reach(self.snapshots[0].levels)

    @property
    def end(self) -> float:
        """Return the same after the last step."""
        return reach(self.snapshots[-1].levels)


@dataclass(frozen=True, kw_only=True)
class DepthStudy:
    """Chains that differ in activation and shortcuts alone.

    Args:
        courses: One a chain, plain ones before their twins.
        chance: The accuracy of always naming the commonest class.
        judged: Images that accuracy is about.
    """

    courses: tuple[Course, ...]
    chance: float
    judged: int

    @property
    def twins(self) -> list[tuple[Course, Course]]:
        """Return the plain and the residual chain of each activation."""
        return list(zip(self.courses[::2], self.courses[1::2], strict=True))


def depth_study(
    data: ImageData,
    *,
    depth: int = 32,
    width: int = 8,
    steps: int = STEPS,
    activations: Sequence[str] = tuple(ACTIVATIONS),
    rates: Sequence[float] = RATES,
    seed: int = 0,
    told: Told = lambda line: None,
) -> DepthStudy:
    """Train plain and residual chains of each activation; measure their layers.

    The twins of an activation begin with equal weights and see equal batches. Each
    chain learns by SGD with momentum at the best of some rates, by its own training
    cost, so that none fails for its rate alone. Layers are measured in float64, where
    no gradient is too small to be a number.

    Args:
        data: Images; those larger than 16×16 are averaged down.
        depth: Layers with weights.
        width: Channels.
        steps: Of learning, for each rate.
        activations: Of `ACTIVATIONS`.
        rates: Learning rates to choose from.
        seed: Of weights and order.
        told: Gets a line when a chain is done.

    Raises:
        SettingError: No steps, rates or activations.
    """
    if steps < 1 or not rates or not activations:
        what = f"{steps} steps, {len(rates)} rates, {len(activations)} activations"
        raise SettingError(what, where="depth_study", fix="give at least one of each")
    images = _Images(data, seed)
    designs = [
        Design(activation=name, residual=residual, depth=depth, width=width)
        for name in activations
        for residual in (False, True)
    ]
    courses = []
    for design in designs:
        courses.append(_best(design, images, steps, rates, seed))
        right = f"{100 * courses[-1].accuracy:.1f} % of validation"
        told(f"chain {len(courses)}/{len(designs)}  {design.name}: {right}")
    counts = images.labels.bincount()
    return DepthStudy(
        courses=tuple(courses),
        chance=float(counts.max() / counts.sum()),
        judged=len(images.labels),
    )


class _Images:
    """What the chains learn from and are judged by, small, and all in memory."""

    def __init__(self, data: ImageData, seed: int) -> None:
        self.channels, self.classes = data.in_chans, data.num_classes
        self._seed = seed
        train = self._read(data, "train")
        self._x, self._y = train
        self.looked_at: Batch = train[0][:BATCH], train[1][:BATCH]
        self.judged, self.labels = self._read(data, "val")

    def _read(self, data: ImageData, name: str) -> Batch:
        subset = _some(data.subset(name))
        made = Batches(
            subset=subset, preprocess=data.preprocess, batch_size=256, shuffle=False
        )
        batches = [(_small(x), y) for x, y in made(0)]
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    def batches(self) -> Iterator[Batch]:
        """Yield batches without end; the order is a function of the seed."""
        for epoch in count():
            draw = torch.Generator().manual_seed(1000 * self._seed + epoch)
            order = torch.randperm(len(self._y), generator=draw)
            for index in torch.split(order, BATCH):
                yield self._x[index], self._y[index]


def _some(subset: Subset) -> Subset:
    if len(subset) <= IMAGES:
        return subset
    return subset.take([i * len(subset) // IMAGES for i in range(IMAGES)])


def _small(x: Tensor) -> Tensor:
    height, width = (min(side, LARGEST) for side in x.shape[2:])
    return F.adaptive_avg_pool2d(x, (height, width))


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One chain at one rate; its weights are kept to be looked at if it is the best."""

    lr: float
    costs: tuple[float, ...]
    kept: tuple[tuple[int, dict[str, Tensor]], ...]


def _best(
    design: Design,
    images: _Images,
    steps: int,
    rates: Sequence[float],
    seed: int,
) -> Course:
    """Train at each rate and return the course of the least cost at its end."""
    model = chain(design, images.channels, images.classes, seed)
    first = _weights(model)
    tried = []
    for lr in rates:
        model.load_state_dict(first)
        tried.append(_trained(model, images, steps, lr))
    tail = max(1, round(_TAIL * steps))
    best = min(tried, key=lambda one: sum(one.costs[-tail:]))
    snapshots = []
    for step, weights in best.kept:
        model.load_state_dict(weights)
        snapshots.append(_look(model, images, step))
    return Course(
        design=design,
        lr=best.lr,
        snapshots=tuple(snapshots),
        costs=best.costs,
        accuracy=_accuracy(model, images),
    )


def _trained(model: nn.Module, images: _Images, steps: int, lr: float) -> _Trial:
    optimizer = torch.optim.SGD(model.parameters(), lr, MOMENTUM)
    kept = [(0, _weights(model))]
    costs: list[float] = []
    for step, (x, y) in enumerate(islice(images.batches(), steps), 1):
        try:
            with flushed_denormals():  # or what vanishes would take a hundred times
                costs.append(train_step(model, x, y, optimizer))
        except NonFiniteError:
            costs += [float("inf")] * (steps - len(costs))
            break
        if due(step) or step == steps:
            kept.append((step, _weights(model)))
    return _Trial(lr=lr, costs=tuple(costs), kept=tuple(kept))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.clone() for name, one in model.state_dict().items()}


def _look(model: nn.Module, images: _Images, step: int) -> Snapshot:
    exact = copy.deepcopy(model).double()
    x, labels = images.looked_at
    levels = depth_profile(exact, x.double(), labels)
    return Snapshot(step=step, levels=tuple(levels))


@torch.no_grad()
def _accuracy(model: nn.Module, images: _Images) -> float:
    right = model(images.judged).argmax(1) == images.labels
    return float(right.double().mean())
