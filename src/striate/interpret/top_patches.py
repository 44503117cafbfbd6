"""What each channel looks for: the places of the data that excite it most, by class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import DataError
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.interpret.activations_at import forward, module_of

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A place that excites a channel.

    Args:
        image: Its number in the order the data came.
        row: Of the unit, on the layer's map.
        column: Likewise.
        value: The unit's number.
    """

    image: int
    row: int
    column: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What the channels of one layer answer to, over a set of images.

    Args:
        call: The layer.
        spots: For each channel its most exciting places, one an image, best first.
        by_class: (classes, channels): mean over a class's images and places of what
            is above zero.
        selectivity: (channels,): 0 answers to all classes alike, 1 to one alone;
            nan where a channel is silent (Morcos et al. 2018).
    """

    call: str
    spots: tuple[tuple[Spot, ...], ...]
    by_class: Tensor
    selectivity: Tensor

    @property
    def favorites(self) -> list[int]:
        """Return the class that excites each channel most."""
        best: list[int] = self.by_class.argmax(0).tolist()
        return best


def habits(
    model: nn.Module,
    batches: Iterable[Batch],
    calls: Sequence[str],
    classes: int,
    count: int = 9,
) -> list[Habits]:
    """Return what the channels of layers answer to, in one pass over the data.

    Memory holds one batch's maps of the layers asked for, one layer at a time, and
    `count` places and `classes` means a channel.

    Args:
        model: Any network; left as it was.
        batches: (input, label) batches.
        calls: Layers whose outputs are maps.
        classes: How many classes there are.
        count: Places kept a channel.

    Raises:
        DataError: There are no images.

    Example:
        >>> model = nn.Sequential(nn.Identity())
        >>> x = torch.zeros(2, 1, 3, 3)
        >>> x[1, 0, 2, 1] = 5
        >>> found = habits(model, [(x, torch.tensor([0, 1]))], ["0"], 2)[0]
        >>> found.spots[0][0], found.selectivity.tolist()
        (Spot(image=1, row=2, column=1, value=5.0), [1.0])
    """
    tables = {call: _Table(classes, count) for call in calls}
    seen = torch.zeros(classes, dtype=torch.float64)
    modules = list(dict.fromkeys(module_of(call) for call in calls))
    first = 0
    for x, labels in batches:

        def note(
            call: str, output: object, labels: Tensor = labels, first: int = first
        ) -> None:
            if call in tables and isinstance(output, Tensor) and output.ndim == 4:
                tables[call].add(output.detach(), labels, first)

        with (
            evaluation_mode(model),
            intercept_outputs(model, modules, note),
            torch.no_grad(),
        ):
            forward(model, x)
        seen += torch.bincount(labels.cpu(), minlength=classes)
        first += len(x)
    if not first:
        raise DataError("there are no images to look at", where="batches")
    return [table.habits(call, seen) for call, table in tables.items()]


class _Table:
    def __init__(self, classes: int, count: int) -> None:
        self._classes = classes
        self._count = count
        self._sums = torch.zeros(0)
        self._values = torch.zeros(0)
        self._places = torch.zeros(0)

    def add(self, maps: Tensor, labels: Tensor, first: int) -> None:
        """Take a batch's maps in, (N, channels, h, w)."""
        channels = maps.shape[1]
        if not len(self._sums):
            self._sums = torch.zeros(self._classes, channels, dtype=torch.float64)
            self._values = torch.zeros(0, channels)
            self._places = torch.zeros(0, channels, 3, dtype=torch.int64)
        means = maps.clamp(min=0).mean((2, 3)).double().cpu()
        self._sums.index_add_(0, labels.cpu(), means)
        best, at = maps.flatten(2).float().cpu().max(2)
        image = torch.arange(first, first + len(maps))[:, None].expand_as(at)
        width = maps.shape[3]
        places = torch.stack([image, at // width, at % width], 2)
        values = torch.cat([self._values, best])
        places = torch.cat([self._places, places])
        order = values.argsort(stable=True, dim=0, descending=True)[: self._count]
        self._values = values.gather(0, order)
        self._places = places.gather(0, order[..., None].expand(-1, -1, 3))

    def habits(self, call: str, seen: Tensor) -> Habits:
        """Return what was found."""
        by_class = self._sums / seen.clamp(min=1)[:, None]
        rows = zip(self._values.T, self._places.transpose(0, 1), strict=True)
        spots = tuple(
            tuple(
                Spot(image=p, row=r, column=c, value=v)
                for v, (p, r, c) in zip(values.tolist(), places.tolist(), strict=True)
            )
            for values, places in rows
        )
        index = selectivity(by_class[seen > 0])
        return Habits(call=call, spots=spots, by_class=by_class, selectivity=index)


def selectivity(by_class: Tensor) -> Tensor:
    """Return (most − mean of the others)/(most + mean of the others) by channel.

    Example:
        >>> selectivity(torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 1.0]])).tolist()
        [0.5, 0.0]
    """
    if len(by_class) < 2:
        return torch.full((by_class.shape[1],), float("nan"))
    most = by_class.amax(0)
    others = (by_class.sum(0) - most) / (len(by_class) - 1)
    return (most - others) / (most + others)
