"""Image patches with the highest activation of each channel; class selectivity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from striate.core.errors import DataError
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.interpret.activations_at import forward, module_name

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class TopPatch:
    """Image patch with a high activation of a channel: image index and position."""

    image: int
    row: int
    column: int
    value: float


@dataclass(frozen=True, kw_only=True)
class ChannelPreferences:
    """Top patches, class means and class selectivity of a layer's channels."""

    call: str  # layer name
    # Patches with the highest activation of each channel, at most one per image,
    # highest first.
    patches: tuple[tuple[TopPatch, ...], ...]
    # (classes, channels): mean positive activation over a class's images and positions.
    by_class: Tensor
    # (channels,): 0 if all classes have the same mean, 1 if only one class activates
    # the channel; nan for dead channels (Morcos et al. 2018).
    selectivity: Tensor

    @cached_property
    def preferred_classes(self) -> list[int]:
        """Return each channel's class with the highest mean activation."""
        values_best: list[int] = self.by_class.argmax(0).tolist()
        return values_best


def channel_preferences(
    model: nn.Module,
    batches: Iterable[Batch],
    calls: Sequence[str],
    classes: int,
    count: int = 9,
) -> list[ChannelPreferences]:
    """Find top patches and selectivity of every channel in one pass over a dataset.

    In memory are the output of one layer for one batch, and `count` patches and
    `classes` means per channel.

    Raises:
        DataError: There are no images.

    Example:
        >>> model = nn.Sequential(nn.Identity())
        >>> x = torch.zeros(2, 1, 3, 3)
        >>> x[1, 0, 2, 1] = 5
        >>> batches = [(x, torch.tensor([0, 1]))]
        >>> result = channel_preferences(model, batches, ["0"], classes=2)[0]
        >>> result.patches[0][0], result.selectivity.tolist()
        (TopPatch(image=1, row=2, column=1, value=5.0), [1.0])
    """
    tables = {call: _Table(classes, count) for call in calls}
    class_counts = torch.zeros(classes, dtype=torch.float64)
    modules = list(dict.fromkeys(module_name(call) for call in calls))
    first = 0
    for x, labels in batches:

        def add_maps(
            call: str, output: object, labels: Tensor = labels, first: int = first
        ) -> None:
            if call in tables and isinstance(output, Tensor) and output.ndim == 4:
                tables[call].add(output.detach(), labels, first)

        with (
            evaluation_mode(model),
            intercept_outputs(model, modules, add_maps),
            torch.no_grad(),
        ):
            forward(model, x)
        if labels.ndim == 2:  # several labels per image
            class_counts += labels.cpu().sum(0)
        else:
            class_counts += torch.bincount(labels.cpu(), minlength=classes)
        first += len(x)
    if not first:
        raise DataError("there are no images", where="batches")
    return [table.preferences(call, class_counts) for call, table in tables.items()]


class _Table:
    def __init__(self, classes: int, count: int) -> None:
        self._classes = classes
        self._count = count
        self._sums = torch.zeros(0)
        self._values = torch.zeros(0)
        self._positions = torch.zeros(0)

    def add(self, maps: Tensor, labels: Tensor, first: int) -> None:
        """Add the outputs for one batch, (N, channels, h, w)."""
        channels = maps.shape[1]
        if not len(self._sums):
            self._sums = torch.zeros(self._classes, channels, dtype=torch.float64)
            self._values = torch.zeros(0, channels)
            self._positions = torch.zeros(0, channels, 3, dtype=torch.int64)
        means = maps.clamp(min=0).mean((2, 3)).double().cpu()
        if labels.ndim == 2:
            self._sums += labels.cpu().double().T @ means
        else:
            self._sums.index_add_(0, labels.cpu(), means)
        best, flat = maps.flatten(2).float().cpu().max(2)
        image = torch.arange(first, first + len(maps))[:, None].expand_as(flat)
        width = maps.shape[3]
        positions = torch.stack([image, flat // width, flat % width], 2)
        values = torch.cat([self._values, best])
        positions = torch.cat([self._positions, positions])
        order = values.argsort(stable=True, dim=0, descending=True)[: self._count]
        self._values = values.gather(0, order)
        self._positions = positions.gather(0, order[..., None].expand(-1, -1, 3))

    def preferences(self, call: str, class_counts: Tensor) -> ChannelPreferences:
        """Return the top patches, class means and selectivity of all added batches."""
        by_class = self._sums / class_counts.clamp(min=1)[:, None]
        rows = zip(self._values.T, self._positions.transpose(0, 1), strict=True)
        patches = []
        for values, positions in rows:
            pairs = zip(values.tolist(), positions.tolist(), strict=True)
            patches.append(
                tuple(
                    TopPatch(image=image, row=row, column=column, value=value)
                    for value, (image, row, column) in pairs
                )
            )
        index = selectivity(by_class[class_counts > 0])
        return ChannelPreferences(
            call=call, patches=tuple(patches), by_class=by_class, selectivity=index
        )


def selectivity(by_class: Tensor) -> Tensor:
    """Return (max − mean of other classes)/(max + mean of other classes) per channel.

    Example:
        >>> selectivity(torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 1.0]])).tolist()
        [0.5, 0.0]
    """
    if len(by_class) < 2:
        return torch.full((by_class.shape[1],), float("nan"))
    most = by_class.amax(0)
    others = (by_class.sum(0) - most) / (len(by_class) - 1)
    return (most - others) / (most + others)
