"""Curves of invariance: accuracy, consistency and feature distance against a move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import DataError
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.interpret.activations_at import check_batch, chosen, forward, module_of
from striate.interpret.attribution.target import logits_of
from striate.interpret.invariance.transforms import Move

Batch = tuple[Tensor, Tensor]
OUTPUT = "output"


@dataclass(frozen=True, kw_only=True)
class Response:
    """What a network makes of images moved by growing amounts.

    Args:
        move: The move's name.
        unit: Of the amounts.
        amounts: As tried.
        accuracy: Share of moved images answered rightly, by amount.
        consistency: Share answered as when they stood still (Zhang 2019).
        distance: For each layer, and `output` for the scores, the mean distance of a
            moved image's features from its own, in units of the mean distance of
            two images: 0 has not noticed, 1 sees another image.
        images: How many there were, each moved once a direction.
    """

    move: str
    unit: str
    amounts: tuple[float, ...]
    accuracy: tuple[float, ...]
    consistency: tuple[float, ...]
    distance: dict[str, tuple[float, ...]]
    images: int


@torch.no_grad()
def respond(
    model: nn.Module,
    batches: Iterable[Batch],
    moves: Sequence[Move],
    layers: str | Sequence[str] = (),
) -> list[Response]:
    """Measure how answers and features bear moved images.

    Features are compared place by place, so that a map which only moves along counts
    as changed: what is measured is invariance, not equivariance. Memory holds one
    batch's features of the layers.

    Args:
        model: Any classifier; left as it was.
        batches: (input, label) batches, the input as the network takes it.
        moves: Of `MOVES`, or your own.
        layers: Names or patterns whose features are compared besides the scores.

    Raises:
        UnknownNameError: No layer has this name; lists the right ones.
        DataError: There are not two images to compare.

    Example:
        >>> from striate.interpret.invariance.transforms import move_of
        >>> tail = nn.AdaptiveMaxPool2d(1), nn.Flatten()
        >>> x = torch.zeros(2, 2, 9, 9)
        >>> x[0, 0, 4, 4], x[1, 1, 4, 4] = 1.0, 1.0
        >>> batch = x, torch.tensor([0, 1])
        >>> found = respond(nn.Sequential(*tail), [batch], [move_of("shift")])[0]
        >>> found.consistency, found.distance["output"]
        ((1.0, 1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0, 0.0))
    """
    calls = chosen(model, layers) if layers else []
    tallies = [[_Tally() for _ in move.amounts] for move in moves]
    ring: dict[str, _Ring] = {}
    images = 0
    for x, labels in batches:
        check_batch(x)
        rest = _seen(model, x, calls)
        images += len(x)
        for name, values in rest.items():
            ring.setdefault(name, _Ring()).add(values)
        for move, row in zip(moves, tallies, strict=True):
            for amount, tally in zip(move.amounts, row, strict=True):
                for copy in move.copies(x, amount):
                    tally.add(rest, _seen(model, copy, calls), labels)
    if images < 2:
        raise DataError(
            f"needs at least two images to compare, got {images}", where="batches"
        )
    unit = {name: one.total / images for name, one in ring.items()}
    return [
        _response(move, row, unit, images)
        for move, row in zip(moves, tallies, strict=True)
    ]


def _seen(model: nn.Module, x: Tensor, calls: Sequence[str]) -> dict[str, Tensor]:
    """Return the features of calls, and the scores, a row an image."""
    found: dict[str, Tensor] = {}

    def note(call: str, output: object) -> None:
        if call in wanted and isinstance(output, Tensor):
            # A copy: an in-place activation behind the layer would change it.
            found[call] = output.detach().flatten(1).clone()

    wanted = set(calls)
    modules = list(dict.fromkeys(module_of(call) for call in calls))
    with evaluation_mode(model), intercept_outputs(model, modules, note):
        found[OUTPUT] = logits_of(forward(model, x)).float()
    return found


class _Ring:
    """Distances of each image from the next, and of the last from the first."""

    def __init__(self) -> None:
        self._ends: tuple[Tensor, Tensor] | None = None
        self._open = 0.0

    def add(self, values: Tensor) -> None:
        """Take in a batch, a row an image."""
        first, last = self._ends or (values[:1], values[:1])
        before = torch.cat([last, values[:-1]])
        self._open += float((values - before).norm(dim=1).sum())
        self._ends = first, values[-1:]

    @property
    def total(self) -> float:
        """Return the sum once round: as many distances as images."""
        if self._ends is None:
            return 0.0
        first, last = self._ends
        return self._open + float((first - last).norm())


class _Tally:
    """Sums over the moved copies of one amount."""

    def __init__(self) -> None:
        self.count = self.right = self.same = 0
        self.distance: dict[str, float] = {}

    def add(
        self, rest: dict[str, Tensor], moved: dict[str, Tensor], labels: Tensor
    ) -> None:
        """Take in one copy of a batch."""
        answers = moved[OUTPUT].argmax(1)
        self.count += len(answers)
        self.right += int((answers.cpu() == labels.cpu()).sum())
        self.same += int((answers == rest[OUTPUT].argmax(1)).sum())
        for name, values in moved.items():
            gone = float((values - rest[name]).norm(dim=1).sum())
            self.distance[name] = self.distance.get(name, 0.0) + gone


def _response(
    move: Move, row: Sequence[_Tally], unit: dict[str, float], images: int
) -> Response:
    return Response(
        move=move.name,
        unit=move.unit,
        amounts=move.amounts,
        accuracy=tuple(t.right / t.count for t in row),
        consistency=tuple(t.same / t.count for t in row),
        distance={
            name: tuple(t.distance[name] / t.count / (size or 1.0) for t in row)
            for name, size in unit.items()
        },
        images=images,
    )
