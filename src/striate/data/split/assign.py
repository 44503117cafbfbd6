"""Every used image gets a part: the one it was given, had earlier, or is dealt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from striate.data.sources.source import SPLITS, Record, Skipped
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
    split_config: SplitConfig,
    earlier: Earlier | None = None,
) -> Assigned:
    """Keep given parts, take up earlier ones, and deal out those that are missing.

    With no part given, all images are dealt. Where some are given, `val` is dealt
    from the training images if there is none, and `test` too if neither is given.
    An image without a part beside images with one counts as training.
    """
    splits = [record.split for record in records]
    beside = beside_train({split for split in splits if split})
    pool = [i for i, split in enumerate(splits) if split in (None, "train")]
    notes: tuple[str, ...] = ()
    if not beside:
        for i in pool:
            splits[i] = "train"
    elif earlier is None:
        _deal(pool, splits, records, contents, split_config, beside)
    else:
        notes = _take_up(earlier, pool, splits, records, contents, split_config, beside)
    twins = _twins(pool, splits, records, contents)
    return Assigned(
        results=tuple(
            twins.get(i)
            or SplitRow(
                path=record.path,
                label=record.label,
                split=splits[i] or "train",
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
    splits: list[str | None],
    records: Sequence[Record],
    contents: Sequence[str],
    split_config: SplitConfig,
    beside: Sequence[str],
) -> None:
    """Fill in the parts of the images in `pool`."""
    groups = [records[i].group for i in pool]
    if split_config.exact:
        labels = [records[i].label for i in pool]
        hashes = [contents[i] for i in pool]
        dealt = deal_exactly(labels, hashes, groups, split_config, beside)
        for i, split in zip(pool, dealt, strict=True):
            splits[i] = split
        return
    for i, group in zip(pool, groups, strict=True):
        splits[i] = place(
            draw(split_config.seed, "split", contents[i], group), split_config, beside
        )


def _take_up(
    earlier: Earlier,
    pool: Sequence[int],
    splits: list[str | None],
    records: Sequence[Record],
    contents: Sequence[str],
    split_config: SplitConfig,
    beside: Sequence[str],
) -> tuple[str, ...]:
    """Give old images their earlier part and deal the new ones; return notes."""
    allowed = {"train", *beside}
    old = {i: earlier.place(records[i], contents[i]) for i in pool}
    moved = [i for i, split in old.items() if split and split not in allowed]
    new = [i for i, split in old.items() if split not in allowed]
    for i in pool:
        splits[i] = old[i]
    # A part the earlier split did without is not begun for its newcomers. Only
    # validation must be: weights are chosen by it.
    have = [split for split in beside if split in earlier.splits or split == "val"]
    _deal(new, splits, records, contents, split_config, have)
    if "val" not in earlier.splits:
        rest = [i for i in pool if splits[i] == "train" and old[i] in allowed]
        _deal(rest, splits, records, contents, split_config, ("val",))
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
    splits: Sequence[str | None],
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
        ranks = {i: SPLITS.index(splits[i] or "train") for i in same}
        stays = max(same, key=ranks.__getitem__)
        for i in same:
            if ranks[i] < ranks[stays]:
                reason, detail = f"twin-in-{splits[stays]}", records[stays].path
                path = records[i].path
                left_out[i] = Skipped(path=path, reason=reason, detail=detail)
    return left_out
