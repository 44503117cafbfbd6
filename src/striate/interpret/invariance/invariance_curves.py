"""Invariance curves: accuracy, consistency, feature distance by transform strength."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import DataError
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.core.logits import logits_of
from striate.interpret.activations_at import (
    check_image_batch,
    forward,
    match_layers,
    module_name,
)
from striate.interpret.invariance.transforms import Transform

Batch = tuple[Tensor, Tensor]
OUTPUT = "output"


@dataclass(frozen=True, kw_only=True)
class InvarianceCurve:
    """Accuracy, consistency and feature distance for one transform, by strength."""

    transform: str  # name of the transform
    unit: str  # unit of the amounts
    amounts: tuple[float, ...]  # strengths of the transform
    # Share of transformed images predicted correctly, by amount.
    accuracy: tuple[float, ...]
    # Share of transformed images with the same prediction as the original image, by
    # amount (Zhang 2019).
    consistency: tuple[float, ...]
    # For each layer, and `output` for the logits, the mean distance between the
    # features of transformed and original image, divided by the mean distance of two
    # different images: 0 is invariant, 1 is as far as another image.
    distance: dict[str, tuple[float, ...]]
    images: int  # number of images; each is transformed once per direction


@torch.no_grad()
def invariance_curves(
    model: nn.Module,  # any classifier; not modified
    batches: Iterable[Batch],  # (input, label) batches of preprocessed images
    transforms: Sequence[Transform],  # items of `TRANSFORMS`, or your own
    # Names or patterns of layers to compare, besides the logits.
    layers: str | Sequence[str] = (),
) -> list[InvarianceCurve]:
    """Measure how predictions and features change when images are transformed.

    Features are compared position by position, so a shifted feature map counts as
    changed: the curves measure invariance, not equivariance. Only the features of one
    batch are in memory.

    Raises:
        UnknownNameError: No layer has this name; the message lists the names.
        DataError: There are fewer than two images.

    Example:
        >>> from striate.interpret.invariance.transforms import get_transform
        >>> tail = nn.AdaptiveMaxPool2d(1), nn.Flatten()
        >>> x = torch.zeros(2, 2, 9, 9)
        >>> x[0, 0, 4, 4], x[1, 1, 4, 4] = 1.0, 1.0
        >>> batch = x, torch.tensor([0, 1])
        >>> model, shift = nn.Sequential(*tail), get_transform("shift")
        >>> curve = invariance_curves(model, [batch], [shift])[0]
        >>> curve.consistency, curve.distance["output"]
        ((1.0, 1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0, 0.0))
    """
    calls = match_layers(model, layers) if layers else []
    tallies = [[_Tally() for _ in transform.amounts] for transform in transforms]
    neighbor_distances: dict[str, _NeighborDistances] = {}
    images = 0
    for x, labels in batches:
        check_image_batch(x)
        original = _outputs(model, x, calls)
        images += len(x)
        for name, values in original.items():
            neighbor_distances.setdefault(name, _NeighborDistances()).add(values)
        for transform, row in zip(transforms, tallies, strict=True):
            for amount, tally in zip(transform.amounts, row, strict=True):
                for changed in transform.copies(x, amount):
                    tally.add(original, _outputs(model, changed, calls), labels)
    if images < 2:
        what = f"at least two images are required, got {images}"
        raise DataError(what, where="batches")
    mean_distance = {
        name: each.total / images for name, each in neighbor_distances.items()
    }
    return [
        _curve(transform, row, mean_distance, images)
        for transform, row in zip(transforms, tallies, strict=True)
    ]


def _outputs(model: nn.Module, x: Tensor, calls: Sequence[str]) -> dict[str, Tensor]:
    """Return the features of the layers and the logits, one row per image."""
    outputs: dict[str, Tensor] = {}

    def note(call: str, output: object) -> None:
        if call in call_names and isinstance(output, Tensor):
            # A copy: an in-place activation after the layer would change it.
            outputs[call] = output.detach().flatten(1).clone()

    call_names = set(calls)
    modules = list(dict.fromkeys(module_name(call) for call in calls))
    with evaluation_mode(model), intercept_outputs(model, modules, note):
        outputs[OUTPUT] = logits_of(forward(model, x)).float()
    return outputs


class _NeighborDistances:
    """Sum of feature distances between consecutive images, and from last to first."""

    def __init__(self) -> None:
        self._ends: tuple[Tensor, Tensor] | None = None
        self._sum = 0.0

    def add(self, values: Tensor) -> None:
        """Add the features of a batch, one row per image."""
        first, last = self._ends or (values[:1], values[:1])
        before = torch.cat([last, values[:-1]])
        self._sum += float((values - before).norm(dim=1).sum())
        self._ends = first, values[-1:]

    @property
    def total(self) -> float:
        """Return the sum of the distances, including that from last to first image."""
        if self._ends is None:
            return 0.0
        first, last = self._ends
        return self._sum + float((first - last).norm())


class _Tally:
    """Running sums over the transformed images of one strength."""

    def __init__(self) -> None:
        self.count = self.correct = self.unchanged = 0
        self.distance: dict[str, float] = {}

    def add(
        self, original: dict[str, Tensor], changed: dict[str, Tensor], labels: Tensor
    ) -> None:
        """Add one transformed batch."""
        predicted = changed[OUTPUT].argmax(1)
        self.count += len(predicted)
        self.correct += int((predicted.cpu() == labels.cpu()).sum())
        self.unchanged += int((predicted == original[OUTPUT].argmax(1)).sum())
        for name, values in changed.items():
            moved_distance = float((values - original[name]).norm(dim=1).sum())
            self.distance[name] = self.distance.get(name, 0.0) + moved_distance


def _curve(
    transform: Transform, row: Sequence[_Tally], means: dict[str, float], images: int
) -> InvarianceCurve:
    return InvarianceCurve(
        transform=transform.name,
        unit=transform.unit,
        amounts=transform.amounts,
        accuracy=tuple(t.correct / t.count for t in row),
        consistency=tuple(t.unchanged / t.count for t in row),
        distance={
            name: tuple(t.distance[name] / t.count / (size or 1.0) for t in row)
            for name, size in means.items()
        },
        images=images,
    )
