"""Every used image gets a part: the one it was given, had earlier, or is dealt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from striate.data.sources.source import PARTS, Record, Skipped
from striate.data.split.exact_counts import deal_exactly
from striate.data.split.hash_split import SplitConfig, draw, place
from striate.data.split.split_file import Earlier, SplitRow


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """What became of each image: a row, or left out because an equal one stays.

    Args:
        results: In the order of the records.
        dealt: The parts that were dealt out of the training images.
        notes: Sentences on an earlier split that was taken up.
    """

    results: tuple[SplitRow | Skipped, ...]
    dealt: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def stays(self) -> list[int]:
        """Return the positions of the images that have a part."""
        return [i for i, r in enumerate(self.results) if isinstance(r, SplitRow)]

    @property
    def rows(self) -> list[SplitRow]:
        """Return their rows."""
        return [r for r in self.results if isinstance(r, SplitRow)]

    @property
    def left_out(self) -> list[Skipped]:
        """Return the others."""
        return [r for r in self.results if isinstance(r, Skipped)]


def assign(
    records: Sequence[Record],
    contents: Sequence[str],
    deal: SplitConfig,
    earlier: Earlier | None = None,
) -> Assigned:
    """Keep given parts, take up earlier ones, and deal out those that are missing.

    With no part given, all images are dealt. Where some are given, `val` is dealt
    from the training images if there is none, and `test` too if neither is given.
    An image without a part beside images with one counts as training.
    """
    parts = [record.part for record in records]
    beside = beside_train({part for part in parts if part})
    pool = [i for i, part in enumerate(parts) if part in (None, "train")]
    notes: tuple[str, ...] = ()
    if not beside:
        for i in pool:
            parts[i] = "train"
    elif earlier is None:
        _deal(pool, parts, records, contents, deal, beside)
    else:
        notes = _take_up(earlier, pool, parts, records, contents, deal, beside)
    twins = _twins(pool, parts, records, contents)
    return Assigned(
        results=tuple(
            twins.get(i)
            or SplitRow(
                path=record.path,
                label=record.label,
                part=parts[i] or "train",
                group=record.group or "",
                content=contents[i],
            )
            for i, record in enumerate(records)
        ),
        dealt=beside,
        notes=notes,
    )


def beside_train(given: set[str]) -> tuple[str, ...]:
    """Return the parts to deal out of the training images.

    Example:
        >>> beside_train(set()), beside_train({"train", "test"})
        (('val', 'test'), ('val',))
        >>> beside_train({"train", "val"})
        ()
    """
    if "val" in given:
        return ()
    return ("val",) if "test" in given else ("val", "test")


def _deal(
    pool: Sequence[int],
    parts: list[str | None],
    records: Sequence[Record],
    contents: Sequence[str],
    deal: SplitConfig,
    beside: Sequence[str],
) -> None:
    """Fill in the parts of the images in `pool`."""
    groups = [records[i].group for i in pool]
    if deal.exact:
        labels = [records[i].label for i in pool]
        hashes = [contents[i] for i in pool]
        dealt = deal_exactly(labels, hashes, groups, deal, beside)
        for i, part in zip(pool, dealt, strict=True):
            parts[i] = part
        return
    for i, group in zip(pool, groups, strict=True):
        parts[i] = place(draw(deal.seed, "split", contents[i], group), deal, beside)


def _take_up(
    earlier: Earlier,
    pool: Sequence[int],
    parts: list[str | None],
    records: Sequence[Record],
    contents: Sequence[str],
    deal: SplitConfig,
    beside: Sequence[str],
) -> tuple[str, ...]:
    """Give old images their earlier part and deal the new ones; return notes."""
    allowed = {"train", *beside}
    old = {i: earlier.place(records[i], contents[i]) for i in pool}
    moved = [i for i, part in old.items() if part and part not in allowed]
    new = [i for i, part in old.items() if part not in allowed]
    for i in pool:
        parts[i] = old[i]
    # A part the earlier split did without is not begun for its newcomers. Only
    # validation must be: weights are chosen by it.
    have = [part for part in beside if part in earlier.parts or part == "val"]
    _deal(new, parts, records, contents, deal, have)
    if "val" not in earlier.parts:
        rest = [i for i in pool if parts[i] == "train" and old[i] in allowed]
        _deal(rest, parts, records, contents, deal, ("val",))
    kept, gone = len(pool) - len(new), earlier.gone(records, contents)
    notes = [
        f"split of {earlier.origin}: {kept:,} images stay where they were, "
        f"{len(new):,} new ones are dealt, {gone:,} are gone"
    ]
    if moved:
        notes.append(f"{len(moved):,} test images stand in train now; dealt anew")
    return tuple(notes)


def _twins(
    pool: Sequence[int],
    parts: Sequence[str | None],
    records: Sequence[Record],
    contents: Sequence[str],
) -> dict[int, Skipped]:
    """Return the images to leave out because an equal one is in a later part.

    Equal images of one group, or of none, lie together. Of two groups they need
    not: moving a whole group for one image would move old ones, so the copy in
    the less protected part goes, and no test image ever does.
    """
    copies: dict[str, list[int]] = defaultdict(list)
    for i in pool:
        copies[contents[i]].append(i)
    left_out = {}
    for same in copies.values():
        ranks = {i: PARTS.index(parts[i] or "train") for i in same}
        stays = max(same, key=ranks.__getitem__)
        for i in same:
            if ranks[i] < ranks[stays]:
                reason, detail = f"twin-in-{parts[stays]}", records[stays].path
                path = records[i].path
                left_out[i] = Skipped(path=path, reason=reason, detail=detail)
    return left_out
