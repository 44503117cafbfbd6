"""Occlusion: what the score loses when a window of the picture is covered.

Zeiler and Fergus 2014, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.taps import untouched
from striate.look.capture import check_batch, forward, together
from striate.look.evidence.patchwork import Boxes, NotBatchedError, Patchwork
from striate.look.evidence.question import Question, logits_of
from striate.look.tape import record

AT_ONCE = 32  # covered pictures a batch, each computed whole
MOST_AT_ONCE = 256  # changes a batch, where only boxes are computed
MEMORY = 1 << 26  # bytes that the largest map of a batch of changes may take
_SAME, _ROUNDING = 1e-3, 1e-5  # of the scores' spread, and of a score itself
Box = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class Cover:
    """Windows over a picture; the last of a row or column ends at the border.

    Args:
        window: Rows and columns covered at a time.
        stride: Steps down and across.
        value: What covered numbers become; zero is the mean of a normalised set.
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
        """Choose windows of about a seventh of the picture, half of it apart.

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
        axes = [
            [slice(at, min(at + window, side)) for at in _starts(side, window, stride)]
            for side, window, stride in zip(
                (height, width), self.window, self.stride, strict=True
            )
        ]
        return [(rows, columns) for rows in axes[0] for columns in axes[1]]


def _starts(side: int, window: int, stride: int) -> range:
    return range(0, max(side - window, 0) + stride, stride)


def occlusion(
    model: nn.Module, x: Tensor, question: Question, cover: Cover | None = None
) -> Tensor:
    """Return for every pixel the mean loss of score over the windows that cover it.

    Of each layer only what a window changes is computed again (`look.patchwork`), and
    one window in the middle is held against the whole computation.

    Args:
        model: Any network; left as it was.
        x: One picture, (1, C, H, W).
        question: What is asked.
        cover: The windows; chosen by the picture's size where None.

    Shapes:
        (1, C, H, W) → (H, W)

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> asked = Question(target=0, words="0")
        >>> pixels = Cover(window=(1, 1), stride=(1, 1))
        >>> lost = occlusion(model, torch.ones(1, 1, 2, 2), asked, pixels)
        >>> torch.allclose(lost.flatten(), model[1].weight[0], atol=1e-6)
        True
    """
    check_batch(x)
    height, width = x.shape[2:]
    cover = cover or Cover.of(height, width)
    boxes = cover.boxes(height, width)
    with untouched(model), torch.no_grad():
        whole = question.score(logits_of(forward(model, x)))
        scores = _patched(model, x, question, cover, boxes)
        if scores is None:
            scores = plain_scores(model, x, question, cover, boxes)
    return spread(whole - scores, boxes, height, width)


def _patched(
    model: nn.Module, x: Tensor, question: Question, cover: Cover, boxes: list[Box]
) -> Tensor | None:
    """Recompute only what each window changes; None where that is not the same."""
    try:
        one = record(model, x)
        work = Patchwork(one, record(model, x.repeat(2, 1, 1, 1)))
    except (NotBatchedError, GeometryError):
        return None
    largest = max(result.nbytes for step in one.steps for result in step.results)
    most = max(1, min(MOST_AT_ONCE, MEMORY // largest))
    found = []
    for start in range(0, len(boxes), most):
        part = boxes[start : start + most]
        found.append(question.score(logits_of(work.run(_boxes(x, part, cover)))))
    scores = torch.cat(found)
    middle = len(boxes) // 2
    truth = plain_scores(model, x, question, cover, boxes[middle : middle + 1])
    # Relative to what windows change: the score itself may dwarf it.
    size = float((scores - scores.mean()).abs().max())
    limit = _SAME * size + _ROUNDING * max(1.0, float(truth[0].abs()))
    return scores if abs(float(scores[middle] - truth[0])) <= limit else None


def _boxes(x: Tensor, boxes: list[Box], cover: Cover) -> Boxes:
    """Return covered windows as changes of one size; short ones show what is there."""
    height, width = x.shape[2:]
    rows, columns = min(cover.window[0], height), min(cover.window[1], width)
    tops = [min(down.start, height - rows) for down, _ in boxes]
    lefts = [min(across.start, width - columns) for _, across in boxes]
    places = zip(tops, lefts, strict=True)
    values = torch.stack(
        [x[0, :, t : t + rows, s : s + columns].clone() for t, s in places]
    )
    for i, (down, across) in enumerate(boxes):
        values[i, :, down.start - tops[i] :, across.start - lefts[i] :] = cover.value
    return Boxes(values, tops, lefts)


def plain_scores(
    model: nn.Module, x: Tensor, question: Question, cover: Cover, boxes: list[Box]
) -> Tensor:
    """Return the scores of covered pictures, each computed whole."""
    found = []
    most = together(x.shape[2], x.shape[3], AT_ONCE)
    for start in range(0, len(boxes), most):
        part = boxes[start : start + most]
        batch = x.repeat(len(part), 1, 1, 1)
        for picture, (rows, columns) in zip(batch, part, strict=True):
            picture[:, rows, columns] = cover.value
        found.append(question.score(logits_of(forward(model, batch))))
    return torch.cat(found)


def spread(losses: Tensor, boxes: list[Box], height: int, width: int) -> Tensor:
    """Return the mean over the windows that cover each pixel."""
    total = losses.new_zeros(height, width)
    count = losses.new_zeros(height, width)
    for loss, (rows, columns) in zip(losses, boxes, strict=True):
        total[rows, columns] += loss
        count[rows, columns] += 1
    return total / count
