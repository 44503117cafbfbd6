"""Doubtful labels as a finding, and as a ranking of every image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from striate.data.check.finding import Finding, Group
from striate.data.check.label_errors import Confident

DOUBT = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """An image's place in the ranking; figures are None where nothing was said.

    Args:
        rank: From 1, the most doubted.
        position: In the check.
        label: Its class.
        looks_like: Another class.
        probability: Of that one.
        of_label: Of its own class.
        support: The latter over the mean of its class: 0 not at all, 1 as usual.
        believed_wrong: Whether it is among those to look at.
    """

    rank: int
    position: int
    label: str
    looks_like: str | None
    probability: float | None
    of_label: float | None
    support: float | None
    believed_wrong: bool


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """What networks think of labels of images that they did not learn.

    Args:
        judged: Probabilities and labels, by position in the check.
        names: Class names by number.
        model: The network.
        folds: Each fold was judged by a network that learned the others.
        epochs: How often it went through them.
        seconds: How long it all took.
    """

    judged: Confident = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    model: str
    folds: int
    epochs: int
    seconds: float

    @property
    def unjudged(self) -> int:
        """Return how many images no network could judge."""
        return int((~self.judged.judged).sum())

    def says(self, position: int) -> tuple[str, str, float]:
        """Return an image's label, what it looks like, and how probable that is."""
        found = self.judged
        given, other = int(found.given[position]), int(found.other[position])
        return self.names[given], self.names[other], float(found.probs[position, other])

    def ranking(self) -> Iterator[Doubt]:
        """Yield every image, the most doubted first and the unjudged last."""
        found = self.judged
        believed = set(found.wrong.tolist())
        for rank, i in enumerate(found.order.tolist(), start=1):
            given, other, probs = self.says(i)
            known = bool(found.judged[i])
            yield Doubt(
                rank=rank,
                position=i,
                label=given,
                looks_like=other if known else None,
                probability=round(probs, 4) if known else None,
                of_label=round(float(found.own[i]), 4) if known else None,
                support=round(float(found.support[i]), 4) if known else None,
                believed_wrong=i in believed,
            )


def doubt_findings(doubts: Doubts) -> list[Finding]:
    """Return the labels believed wrong, and what could not be judged."""
    return [f for f in (_wrong(doubts), _unjudged(doubts)) if f]


def _wrong(doubts: Doubts) -> Finding | None:
    wrong = doubts.judged.wrong.tolist()
    count = int(doubts.judged.judged.sum())
    if not count:
        return None
    agreement = f"{doubts.judged.agreement:.1%}".replace("%", "\u00a0%")
    how = (
        f"{doubts.folds} networks each judged images that they had not learned, and "
        f"agree with {agreement} of the labels"
    )
    if not wrong:
        what = f"no label of {count:,} is doubted"
        return Finding(kind=DOUBT, tone="note", what=what, why=f"{how}.")
    noun, verb = ("label", "is") if len(wrong) == 1 else ("labels", "are")
    estimate = round(doubts.judged.estimate)
    return Finding(
        kind=DOUBT,
        tone="warning",
        what=f"{len(wrong):,} {noun} of {count:,} {verb} doubted; an estimated "
        f"{estimate:,} {'is' if estimate == 1 else 'are'} wrong",
        why=f"A suspicion, not a verdict: {how}. Of these they are sure of another "
        "class. Some are wrong, some are rare or hard and right; where classes look "
        "alike the estimate is too high.",
        fix="look at each; correct the label, or leave it",
        groups=_groups(doubts, wrong),
    )


def _groups(doubts: Doubts, positions: Sequence[int]) -> tuple[Group, ...]:
    return tuple(Group(members=(i,), note=_note(doubts, i)) for i in positions)


def _note(doubts: Doubts, position: int) -> str:
    """Say what a label is and what it might be.

    In full percent, of which neither 0 nor 100 is claimed.
    """
    given, other, probs = doubts.says(position)
    share = min(max(round(100 * probs), 1), 99)
    return f"labeled {given}, looks like {other}, {share}\u00a0%"


def _unjudged(doubts: Doubts) -> Finding | None:
    lost = (~doubts.judged.judged).nonzero()[0].tolist()
    if not lost:
        return None
    one = len(lost) == 1
    return Finding(
        kind="unjudged",
        tone="note",
        what=f"the label{'' if one else 's'} of {len(lost):,} "
        f"image{'' if one else 's'} could not be judged",
        why="No other image of the class, or only copies and members of one group, "
        "were left to learn it from.",
        groups=tuple(Group(members=(i,)) for i in lost),
    )
