"""Occlusion: what the score loses when a window of the picture is covered.

Zeiler and Fergus 2014, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import SettingError
from striate.core.taps import untouched
from striate.look.capture import check_batch, forward
from striate.look.question import Question, logits_of

AT_ONCE = 32  # covered pictures a batch


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

    def boxes(self, height: int, width: int) -> list[tuple[slice, slice]]:
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
        scores = [
            question.score(logits_of(forward(model, batch)))
            for batch in _covered(x, boxes, cover.value)
        ]
    return spread(whole - torch.cat(scores), boxes, height, width)


def _covered(
    x: Tensor, boxes: list[tuple[slice, slice]], value: float
) -> Iterator[Tensor]:
    for start in range(0, len(boxes), AT_ONCE):
        part = boxes[start : start + AT_ONCE]
        batch = x.repeat(len(part), 1, 1, 1)
        for picture, (rows, columns) in zip(batch, part, strict=True):
            picture[:, rows, columns] = value
        yield batch


def spread(
    losses: Tensor, boxes: list[tuple[slice, slice]], height: int, width: int
) -> Tensor:
    """Return the mean over the windows that cover each pixel."""
    total = losses.new_zeros(height, width)
    count = losses.new_zeros(height, width)
    for loss, (rows, columns) in zip(losses, boxes, strict=True):
        total[rows, columns] += loss
        count[rows, columns] += 1
    return total / count
