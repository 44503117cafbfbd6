"""Occlusion: what the score loses when a window of the image is covered.

Zeiler and Fergus 2014, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.hooks import evaluation_mode
from striate.interpret.activations_at import check_batch, forward, together
from striate.interpret.attribution.batched_steps import NotSideBySideError
from striate.interpret.attribution.partial_forward import Patchwork
from striate.interpret.attribution.patches import Boxes, cut
from striate.interpret.attribution.target import AttributionTarget, logits_of
from striate.interpret.trace import Trace, record

AT_ONCE = 32  # covered images a batch, each computed whole
MOST_AT_ONCE = 256  # changes a batch, where only boxes are computed
MEMORY = 1 << 28  # bytes that the largest map of a batch of changes may take
_SAME, _ROUNDING = 1e-3, 1e-5  # of the scores' spread, and of a score itself
Box = tuple[slice, slice]
Spans = list[slice]


@dataclass(frozen=True, kw_only=True)
class Cover:
    """Windows over an image; the last of a row or column ends at the border.

    Args:
        window: Rows and columns covered at a time.
        stride: Steps down and across.
        value: What covered numbers become; zero is the mean of a normalized set.
    """

    window: tuple[int, int]
    stride: tuple[int, int]
    value: float = 0.0

    def __post_init__(self) -> None:
        if min(*self.window, *self.stride) < 1:
            what = f"window and stride must be at least 1, got {self}"
            raise SettingError(what, where="occlusion")
        if self.stride[0] > self.window[0] or self.stride[1] > self.window[1]:
            what = f"steps of {self.stride} leave gaps between windows of {self.window}"
            raise SettingError(what, where="stride", fix="step at most a window")

    @classmethod
    def of(cls, height: int, width: int) -> Cover:
        """Choose windows of about a seventh of the image, half of it apart.

        Example:
            >>> Cover.of(28, 28)
            Cover(window=(4, 4), stride=(2, 2), value=0.0)
        """
        window = max(1, round(height / 7)), max(1, round(width / 7))
        return cls(window=window, stride=(-(-window[0] // 2), -(-window[1] // 2)))

    def boxes(self, height: int, width: int) -> list[Box]:
        """Return every window, row by row.

        Example:
            >>> len(Cover.of(28, 28).boxes(28, 28))
            169
        """
        return list(product(*self.axes(height, width)))

    def axes(self, height: int, width: int) -> tuple[Spans, Spans]:
        """Return the rows and the columns of the grid that windows make.

        Example:
            >>> Cover(window=(4, 4), stride=(2, 3)).axes(6, 8)[1]
            [slice(0, 4, None), slice(3, 7, None), slice(6, 8, None)]
        """
        sides = (height, width), self.window, self.stride
        down, across = (_spans(*each) for each in zip(*sides, strict=True))
        return down, across


def _spans(side: int, window: int, stride: int) -> Spans:
    starts = range(0, max(side - window, 0) + stride, stride)
    return [slice(at, min(at + window, side)) for at in starts]


def occlusion(
    model: nn.Module, x: Tensor, question: AttributionTarget, cover: Cover | None = None
) -> Tensor:
    """Return for every pixel the mean loss of score over the windows that cover it.

    Of each layer only what a window changes is computed again (`look.patchwork`), and
    one window in the middle is held against the whole computation.

    Args:
        model: Any network; left as it was.
        x: One image, (1, C, H, W).
        question: What is asked.
        cover: The windows; chosen by the image's size where None.

    Shapes:
        (1, C, H, W) → (H, W)

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> asked = AttributionTarget(target=0, words="0")
        >>> pixels = Cover(window=(1, 1), stride=(1, 1))
        >>> lost = occlusion(model, torch.ones(1, 1, 2, 2), asked, pixels)
        >>> torch.allclose(lost.flatten(), model[1].weight[0], atol=1e-6)
        True
    """
    check_batch(x)
    height, width = x.shape[2:]
    cover = cover or Cover.of(height, width)
    boxes = cover.boxes(height, width)
    with evaluation_mode(model), torch.no_grad():
        found = _patched(model, x, question, cover, boxes)
        if found is None:
            whole = question.score(logits_of(forward(model, x)))
            found = whole, plain_scores(model, x, question, cover, boxes)
    whole, scores = found
    return spread(whole - scores, cover, height, width)


def _patched(
    model: nn.Module,
    x: Tensor,
    question: AttributionTarget,
    cover: Cover,
    boxes: list[Box],
) -> tuple[Tensor, Tensor] | None:
    """Return the scores of the image and of every window, by what windows change.

    None where that is not the same as computing everything.
    """
    try:
        tape = record(model, x)
        whole = question.score(logits_of(tape.value(tape.output)))
        scores = _recomputed(tape, x, question, cover)
    except (NotSideBySideError, GeometryError):
        return None
    middle = len(boxes) // 2
    truth = plain_scores(model, x, question, cover, boxes[middle : middle + 1])
    # Relative to what windows change: the score itself may dwarf it.
    size = float((scores - scores.mean()).abs().max())
    limit = _SAME * size + _ROUNDING * max(1.0, float(truth[0].abs()))
    same = abs(float(scores[middle] - truth[0])) <= limit
    return (whole, scores) if same else None


def _recomputed(
    tape: Trace, x: Tensor, question: AttributionTarget, cover: Cover
) -> Tensor:
    """Return every window's score, from what it changes of each layer."""
    down, across = cover.axes(x.shape[2], x.shape[3])
    largest = max(result.nbytes for step in tape.steps for result in step.results)
    most = max(1, min(MOST_AT_ONCE, MEMORY // largest))
    wide = min(most, len(across))
    tall = most // wide
    work = Patchwork(tape)

    def scores(rows: Spans, columns: Spans) -> Tensor:
        logits = logits_of(work.run(_covered(x, rows, columns, cover)))
        return question.score(logits).view(len(rows), len(columns))

    bands = [
        torch.cat([scores(rows, columns) for columns in _batched(across, wide)], 1)
        for rows in _batched(down, tall)
    ]
    return torch.cat(bands).flatten()


def _batched(spans: Spans, most: int) -> Iterator[Spans]:
    """Yield so many at a time."""
    return (spans[i : i + most] for i in range(0, len(spans), most))


def _covered(x: Tensor, rows: Spans, columns: Spans, cover: Cover) -> Boxes:
    """Return covered windows as changes of one size; short ones show what is there."""
    height, width = x.shape[2:]
    tall, wide = min(cover.window[0], height), min(cover.window[1], width)
    tops, down = _placed(rows, tall, height)
    lefts, across = _placed(columns, wide, width)
    boxes = Boxes(cut(x, tops, lefts, (tall, wide)), tops, lefts)
    where = down[:, None, None, :, None] & across[None, :, None, None, :]
    boxes.grid.masked_fill_(where.to(x.device), cover.value)
    return boxes


def _placed(spans: Spans, length: int, room: int) -> tuple[list[int], Tensor]:
    """Return where stretches of one length begin, and what of each is in its span."""
    starts = [min(span.start, room - length) for span in spans]
    gaps = [span.start - at for span, at in zip(spans, starts, strict=True)]
    return starts, torch.arange(length) >= torch.tensor(gaps)[:, None]


def plain_scores(
    model: nn.Module,
    x: Tensor,
    question: AttributionTarget,
    cover: Cover,
    boxes: list[Box],
) -> Tensor:
    """Return the scores of covered images, each computed whole."""
    found = []
    most = together(x.shape[2], x.shape[3], AT_ONCE)
    for start in range(0, len(boxes), most):
        part = boxes[start : start + most]
        batch = x.repeat(len(part), 1, 1, 1)
        for image, (rows, columns) in zip(batch, part, strict=True):
            image[:, rows, columns] = cover.value
        found.append(question.score(logits_of(forward(model, batch))))
    return torch.cat(found)


def spread(losses: Tensor, cover: Cover, height: int, width: int) -> Tensor:
    """Return the mean over the windows that cover each pixel.

    Shapes:
        (windows,) → (height, width)

    Example:
        >>> pairs = Cover(window=(1, 2), stride=(1, 1))
        >>> spread(torch.tensor([1.0, 3.0]), pairs, 1, 3)
        tensor([[1., 2., 3.]])
    """
    axes = cover.axes(height, width)
    down, across = (
        torch.stack([_inside(span, side) for span in spans]).to(losses)
        for spans, side in zip(axes, (height, width), strict=True)
    )
    total = down.T @ losses.view(len(down), len(across)) @ across
    return total / down.sum(0)[:, None] / across.sum(0)


def _inside(span: slice, side: int) -> Tensor:
    """Return 1 where a span is, 0 elsewhere."""
    mask = torch.zeros(side)
    mask[span] = 1
    return mask
