"""Comparison of gradients in plain and residual chains, for three nonlinearities."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.device import flush_denormals
from striate.core.errors import NonFiniteError, SettingError
from striate.core.format import count_text
from striate.data.batches import batches_in_order
from striate.data.image_data import ImageData
from striate.engine.train_step import train_step
from striate.interpret.depth.layer_profile import depth_profile, gradient_factor
from striate.interpret.depth.snapshots import (
    Snapshot,
    first_to_last_gradient,
    is_snapshot_step,
)
from striate.workflows.explain.depth.deep_chain import (
    ACTIVATIONS,
    LARGEST,
    ChainDesign,
    build_chain,
)
from striate.workflows.explain.images import subsample
from striate.workflows.explain.options import OnProgress, no_progress

RATES = (1.0, 0.3, 0.1, 0.03)  # learning rates; each chain uses its best
MOMENTUM = 0.9
BATCH = 64
IMAGES = 2000  # training images, and validation images, at most
STEPS = 240
_TAIL = 0.1  # share of the last steps, whose mean loss decides between rates

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class ChainResult:
    """Training results of one chain."""

    design: ChainDesign
    lr: float
    snapshots: tuple[Snapshot, ...]
    losses: tuple[float, ...]
    accuracy: float

    @property
    def factor(self) -> float:
        """Return the mean gradient ratio of adjacent layers, at initialization."""
        return gradient_factor(self.snapshots[0].layers)

    @property
    def first(self) -> float:
        """Return the ratio of first-layer to last-layer gradient, at initialization."""
        return first_to_last_gradient(self.snapshots[0].layers)

    @property
    def end(self) -> float:
        """Return the ratio of first-layer to last-layer gradient, after training."""
        return first_to_last_gradient(self.snapshots[-1].layers)


@dataclass(frozen=True, kw_only=True)
class DepthStudy:
    """Results of deep chains that differ only in activation function and shortcuts."""

    chains: tuple[ChainResult, ...]
    majority_accuracy: float
    num_images: int

    @property
    def twins(self) -> list[tuple[ChainResult, ChainResult]]:
        """Return (plain, residual) pairs of results, one per activation function."""
        return list(zip(self.chains[::2], self.chains[1::2], strict=True))


def depth_study(
    data: ImageData,
    *,
    depth: int = 32,
    width: int = 8,
    steps: int = STEPS,
    activations: Sequence[str] = tuple(ACTIVATIONS),
    rates: Sequence[float] = RATES,
    seed: int = 0,
    on_progress: OnProgress = no_progress,
) -> DepthStudy:
    """Train plain and residual chains, and measure gradients by layer.

    The twins of an activation start with the same weights and see the same batches.
    Each chain is trained by SGD with momentum at the learning rate with the lowest
    training loss, so that no chain fails because of its learning rate. Gradients are
    measured in float64, to avoid underflow.

    Args:
        data: Dataset; images larger than 16×16 are average-pooled to 16×16.
        depth: Number of layers with weights.
        width: Number of channels.
        steps: Training steps for each learning rate.
        activations: Names of `ACTIVATIONS`.
        rates: Learning rates to try.
        seed: Random seed of weights and image order.
        on_progress: Called with a line of text after each chain.

    Raises:
        SettingError: There are no steps, rates or activations.
    """
    if steps < 1 or not rates or not activations:
        what = (
            f"got {count_text(steps, 'step')}, {len(rates)} rates, "
            f"{len(activations)} activations"
        )
        raise SettingError(what, where="depth_study", fix="give at least one of each")
    images = _Images(data, seed)
    designs = [
        ChainDesign(activation=name, residual=residual, depth=depth, width=width)
        for name in activations
        for residual in (False, True)
    ]
    chains = []
    for design in designs:
        chains.append(_best(design, images, steps, rates, seed))
        accuracy = f"{100 * chains[-1].accuracy:.1f} % validation accuracy"
        on_progress(f"chain {len(chains)}/{len(designs)}  {design.name}: {accuracy}")
    counts = images.labels.bincount()
    return DepthStudy(
        chains=tuple(chains),
        majority_accuracy=float(counts.max() / counts.sum()),
        num_images=len(images.labels),
    )


class _Images:
    """Downsized training and validation images, held in memory."""

    def __init__(self, data: ImageData, seed: int) -> None:
        self.channels, self.classes = data.in_chans, data.num_classes
        self._seed = seed
        self._x, self._y = self._read(data, "train")
        self.probe: Batch = self._x[:BATCH], self._y[:BATCH]
        self.val_images, self.labels = self._read(data, "val")

    def _read(self, data: ImageData, name: str) -> Batch:
        subset = subsample(data.subset(name), IMAGES)
        loader = batches_in_order(subset, data.preprocess, 256)
        batches = [(_small(x), y) for x, y in loader]
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    def batches(self) -> Iterator[Batch]:
        """Yield training batches without end, in an order that depends on the seed."""
        for epoch in count():
            draw = torch.Generator().manual_seed(1000 * self._seed + epoch)
            order = torch.randperm(len(self._y), generator=draw)
            for index in torch.split(order, BATCH):
                yield self._x[index], self._y[index]


def _small(x: Tensor) -> Tensor:
    height, width = (min(side, LARGEST) for side in x.shape[2:])
    return F.adaptive_avg_pool2d(x, (height, width))


@dataclass(frozen=True, kw_only=True)
class _RateTrial:
    """Training of one chain at one learning rate, with checkpoints."""

    lr: float
    losses: tuple[float, ...]
    checkpoints: tuple[tuple[int, dict[str, Tensor]], ...]


def _best(
    design: ChainDesign, images: _Images, steps: int, rates: Sequence[float], seed: int
) -> ChainResult:
    """Train a chain at each learning rate; return the result with the lowest loss."""
    model = build_chain(design, images.channels, images.classes, seed)
    initial = _weights(model)
    trials = []
    for lr in rates:
        model.load_state_dict(initial)
        trials.append(_train(model, images, steps, lr))
    tail = max(1, round(_TAIL * steps))
    best = min(trials, key=lambda weight: sum(weight.losses[-tail:]))
    snapshots = []
    for step, weights in best.checkpoints:
        model.load_state_dict(weights)
        x, labels = images.probe
        levels = depth_profile(copy.deepcopy(model).double(), x.double(), labels)
        snapshots.append(Snapshot(step=step, layers=tuple(levels)))
    with torch.no_grad():
        correct = model(images.val_images).argmax(1) == images.labels
    return ChainResult(
        design=design,
        lr=best.lr,
        snapshots=tuple(snapshots),
        losses=best.losses,
        accuracy=float(correct.double().mean()),
    )


def _train(model: nn.Module, images: _Images, steps: int, lr: float) -> _RateTrial:
    optimizer = torch.optim.SGD(model.parameters(), lr, MOMENTUM)
    checkpoints = [(0, _weights(model))]
    losses: list[float] = []
    for step, (x, y) in enumerate(islice(images.batches(), steps), 1):
        try:
            with flush_denormals():  # denormal numbers would be a hundred times slower
                losses.append(train_step(model, x, y, optimizer))
        except NonFiniteError:
            losses += [float("inf")] * (steps - len(losses))
            break
        if is_snapshot_step(step) or step == steps:
            checkpoints.append((step, _weights(model)))
    return _RateTrial(lr=lr, losses=tuple(losses), checkpoints=tuple(checkpoints))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}
