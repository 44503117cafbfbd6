"""Occlusion maps: the drop of a class score when a window of the image is covered.

Method: Zeiler and Fergus 2014, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.hooks import evaluation_mode
from striate.core.logits import logits_of
from striate.interpret.activations_at import check_image_batch, forward, images_at_once
from striate.interpret.attribution.batched_steps import NotBatchableError
from striate.interpret.attribution.changed_regions import ChangedBoxes, extract_patches
from striate.interpret.attribution.partial_forward import PartialForward
from striate.interpret.attribution.target import AttributionTarget
from striate.interpret.trace import Trace, record_trace

AT_ONCE = 32  # occluded images per batch, in full forward passes
MAX_CHANGES = 256  # changes per batch, in partial forward passes
MAX_BYTES = 1 << 28  # bytes of the largest feature map for a batch of changes
_SAME, _ROUNDING = 1e-3, 1e-5  # tolerance relative to the largest drop, to the score
Box = tuple[slice, slice]
Spans = list[slice]


@dataclass(frozen=True, kw_only=True)
class OcclusionWindow:
    """Size, stride and fill value of the occlusion window.

    The last window of a row or column ends at the image border.
    """

    window: tuple[int, int]  # height and width of the window, in pixels
    stride: tuple[int, int]  # vertical and horizontal step, in pixels
    # Value of covered pixels; zero is the mean color of a normalized dataset.
    value: float = 0.0

    def __post_init__(self) -> None:
        if min(*self.window, *self.stride) < 1:
            what = f"window and stride must be at least 1, got {self}"
            raise SettingError(what, where="occlusion")
        if self.stride[0] > self.window[0] or self.stride[1] > self.window[1]:
            what = f"a stride of {self.stride} leaves gaps between windows of "
            fix = "use a stride no larger than the window"
            raise SettingError(f"{what}{self.window}", where="stride", fix=fix)

    @classmethod
    def of(cls, height: int, width: int, overlap: bool = True) -> OcclusionWindow:
        """Return a window of 1/7 of height and width; the stride is half the window.

        Without `overlap`, the stride is the window.

        Example:
            >>> OcclusionWindow.of(28, 28)
            OcclusionWindow(window=(4, 4), stride=(2, 2), value=0.0)
        """
        window = max(1, round(height / 7)), max(1, round(width / 7))
        if not overlap:
            return cls(window=window, stride=window)
        return cls(window=window, stride=(-(-window[0] // 2), -(-window[1] // 2)))

    def boxes(self, height: int, width: int) -> list[Box]:
        """Return the (row range, column range) of every window, row by row.

        Example:
            >>> len(OcclusionWindow.of(28, 28).boxes(28, 28))
            169
        """
        return list(product(*self.axes(height, width)))

    def axes(self, height: int, width: int) -> tuple[Spans, Spans]:
        """Return the row ranges and column ranges of all windows.

        Example:
            >>> OcclusionWindow(window=(4, 4), stride=(2, 3)).axes(6, 8)[1]
            [slice(0, 4, None), slice(3, 7, None), slice(6, 8, None)]
        """
        down = _spans(height, self.window[0], self.stride[0])
        return down, _spans(width, self.window[1], self.stride[1])


def _spans(side: int, window: int, stride: int) -> Spans:
    starts = range(0, max(side - window, 0) + stride, stride)
    return [slice(at, min(at + window, side)) for at in starts]


def occlusion(
    model: nn.Module,  # any network; not modified
    x: Tensor,  # one preprocessed image, (1, C, H, W)
    target: AttributionTarget,  # the class score to explain
    # Occlusion window; if None, the default for the image size.
    window: OcclusionWindow | None = None,
) -> Tensor:
    """Return each pixel's mean score drop over all windows that cover the pixel.

    Only the part of each layer that a window changes is recomputed
    (`partial_forward`). One window is checked against a full forward pass.

    Shapes:
        (1, C, H, W) → (H, W)

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> target = AttributionTarget(class_index=0, text="0")
        >>> pixels = OcclusionWindow(window=(1, 1), stride=(1, 1))
        >>> drops = occlusion(model, torch.ones(1, 1, 2, 2), target, pixels)
        >>> torch.allclose(drops.flatten(), model[1].weight[0], atol=1e-6)
        True
    """
    check_image_batch(x)
    height, width = x.shape[2:]
    window = window or OcclusionWindow.of(height, width)
    boxes = window.boxes(height, width)
    with evaluation_mode(model), torch.no_grad():
        partial = _partial_scores(model, x, target, window, boxes)
        if partial is None:
            full_score = target.score(logits_of(forward(model, x)))
            scores = full_forward_scores(model, x, target, window, boxes)
        else:
            full_score, scores = partial
    return average_over_windows(full_score - scores, window, height, width)


def _partial_scores(
    model: nn.Module,
    x: Tensor,
    target: AttributionTarget,
    window: OcclusionWindow,
    boxes: list[Box],
) -> tuple[Tensor, Tensor] | None:
    """Return the scores of the full and the covered images, by partial passes.

    Return None if the result differs from a full forward pass.
    """
    try:
        trace = record_trace(model, x)
        if trace.data_dependent:
            return None
        full_score = target.score(logits_of(trace.value(trace.output)))
        scores = _recomputed(trace, x, target, window)
    except (NotBatchableError, GeometryError, RuntimeError):
        return None
    middle = len(boxes) // 2
    expected = full_forward_scores(model, x, target, window, boxes[middle : middle + 1])
    # Relative to the drops: the score itself may be much larger.
    size = float((scores - scores.mean()).abs().max())
    limit = _SAME * size + _ROUNDING * max(1.0, float(expected[0].abs()))
    same = abs(float(scores[middle] - expected[0])) <= limit
    return (full_score, scores) if same else None


def _recomputed(
    trace: Trace, x: Tensor, target: AttributionTarget, window: OcclusionWindow
) -> Tensor:
    """Return the score of the image for each covered window, by partial passes."""
    down, across = window.axes(x.shape[2], x.shape[3])
    largest = max(result.nbytes for step in trace.steps for result in step.results)
    most = max(1, min(MAX_CHANGES, MAX_BYTES // largest))
    columns_at_once = min(most, len(across))
    rows_at_once = most // columns_at_once
    partial_forward = PartialForward(trace)

    bands = []
    for i in range(0, len(down), rows_at_once):
        rows, band = down[i : i + rows_at_once], []
        for j in range(0, len(across), columns_at_once):
            columns = across[j : j + columns_at_once]
            logits = partial_forward.run(_occluded_boxes(x, rows, columns, window))
            band.append(target.score(logits_of(logits)).view(len(rows), len(columns)))
        bands.append(torch.cat(band, 1))
    return torch.cat(bands).flatten()


def _occluded_boxes(
    x: Tensor, rows: Spans, columns: Spans, window: OcclusionWindow
) -> ChangedBoxes:
    """Return the image regions at all windows, equal in size, with pixels covered."""
    size = min(window.window[0], x.shape[2]), min(window.window[1], x.shape[3])
    tops, down = _aligned_starts(rows, size[0], x.shape[2])
    lefts, across = _aligned_starts(columns, size[1], x.shape[3])
    boxes = ChangedBoxes(extract_patches(x, tops, lefts, size), tops, lefts)
    where = down[:, None, None, :, None] & across[None, :, None, None, :]
    boxes.grid.masked_fill_(where.to(x.device), window.value)
    return boxes


def _aligned_starts(spans: Spans, length: int, room: int) -> tuple[list[int], Tensor]:
    """Extend ranges to equal length; return starts, and masks of the given ranges."""
    starts = [min(span.start, room - length) for span in spans]
    gaps = [span.start - at for span, at in zip(spans, starts, strict=True)]
    return starts, torch.arange(length) >= torch.tensor(gaps)[:, None]


def full_forward_scores(
    model: nn.Module,
    x: Tensor,
    target: AttributionTarget,
    window: OcclusionWindow,
    boxes: list[Box],
) -> Tensor:
    """Return the score of the image for each covered window, by full forward passes."""
    scores = []
    most = images_at_once(x.shape, AT_ONCE)
    for start in range(0, len(boxes), most):
        chunk = boxes[start : start + most]
        batch = x.repeat(len(chunk), 1, 1, 1)
        for image, (rows, columns) in zip(batch, chunk, strict=True):
            image[:, rows, columns] = window.value
        scores.append(target.score(logits_of(forward(model, batch))))
    return torch.cat(scores)


def average_over_windows(
    drops: Tensor, window: OcclusionWindow, height: int, width: int
) -> Tensor:
    """Return each pixel's mean score drop over the windows that cover the pixel.

    Shapes:
        (windows,) → (height, width)

    Example:
        >>> pairs = OcclusionWindow(window=(1, 2), stride=(1, 1))
        >>> average_over_windows(torch.tensor([1.0, 3.0]), pairs, 1, 3)
        tensor([[1., 2., 3.]])
    """
    rows, columns = window.axes(height, width)
    down = _coverage(rows, height).to(drops)
    across = _coverage(columns, width).to(drops)
    total = down.T @ drops.view(len(down), len(across)) @ across
    return total / down.sum(0)[:, None] / across.sum(0)


def _coverage(spans: Spans, side: int) -> Tensor:
    """Return a matrix with a row per index range: 1 inside of the range, 0 outside."""
    covered = torch.zeros(len(spans), side)
    for row, span in zip(covered, spans, strict=True):
        row[span] = 1
    return covered
