"""Images that stand on both sides of a split, and what that could be worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from striate.data.check.duplicate_findings import Copies
from striate.data.check.finding import Finding, Group
from striate.data.check.leak_impact import Worth, worth
from striate.data.sources.source import SPLITS, Record

FIX = "remove them from one of the parts; from training, if test results are published"


def given_splits(records: Sequence[Record]) -> list[str]:
    """Return each image's part; without one beside images with one, it is trained.

    Example:
        >>> given_splits([Record(path="a", label="x"), Record(path="b", label="x")])
        ['', '']
    """
    if not any(record.split for record in records):
        return [""] * len(records)
    return [record.split or "train" for record in records]


def leak_findings(
    copies: Copies,
    records: Sequence[Record],
    splits: Sequence[str],
    points: np.ndarray,
) -> list[Finding]:
    """Return a finding for every pair of parts that share images.

    Args:
        copies: Which images are copies of which.
        records: The images' records.
        splits: The part each is in.
        points: (N, d) where close ones look alike, for the estimate.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for position, split in enumerate(splits):
        places[split].append(position)
    found = []
    for k, judged in enumerate(SPLITS):
        for known in SPLITS[:k]:
            twins = _twins(copies, splits, judged, known)
            if twins:
                labels = [record.label for record in records]
                sides = places[judged], places[known]
                gain = worth(points, labels, *sides, twins)
                found.append(_leak(judged, known, twins, gain, copies))
    return found


def _twins(
    copies: Copies, splits: Sequence[str], judged: str, known: str
) -> dict[int, list[int]]:
    """Return each image of the one part that has copies in the other, with them."""
    twins: dict[int, list[int]] = {}
    for family in copies.families:
        there = [i for i in family if splits[i] == known]
        if there:
            twins |= {i: there for i in family if splits[i] == judged}
    return twins


def _leak(
    judged: str,
    known: str,
    twins: dict[int, list[int]],
    gain: Worth,
    copies: Copies,
) -> Finding:
    stand_in = copies.stand_in
    exact = sum(any(stand_in[t] == stand_in[i] for t in ts) for i, ts in twins.items())
    near = len(twins) - exact
    verb, noun = ("is", "image") if len(twins) == 1 else ("are", "images")
    what = f"{len(twins):,} {noun} of {judged} {verb} also in {known}: "
    what += " and ".join(
        f"{n:,} {how}" for n, how in ((exact, "exactly"), (near, "nearly")) if n
    )
    return Finding(
        kind="leak",
        tone="bad",
        what=what,
        why=_reasoning(judged, gain),
        fix=FIX,
        groups=tuple(Group(members=(i, *ts[:3])) for i, ts in sorted(twins.items())),
    )


def _reasoning(judged: str, gain: Worth) -> str:
    leaked = gain.agreeing + gain.differing
    share = leaked / gain.images
    told = [
        f"They are {share:.2%} of {judged}. A network that remembers them answers "
        f"{gain.agreeing:,} right in any case, so accuracy can gain at most "
        f"{100 * gain.bound:.2f} points: if it is a on the rest, "
        f"{gain.bound:.4f} · (1 − a)."
    ]
    told.append(
        f"A nearest-neighbor classifier, which remembers everything, gets "
        f"{gain.anyway:,} of the {leaked:,} right from other images as well: to it "
        f"they are worth {100 * gain.estimate:+.2f} points."
    )
    if gain.differing:
        told.append(
            f"{gain.differing:,} have their copies under another label, which costs a "
            "network that remembers."
        )
    return " ".join(told).replace("%", "\u00a0%")
