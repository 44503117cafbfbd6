"""Assign every image to train, val or test, by a given, earlier or new split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from striate.core.format import count_text
from striate.data.sources.source import SPLITS, Record, Skipped
from striate.data.split.exact_counts import exact_split
from striate.data.split.hash_split import SplitConfig, hash_number, split_of_number
from striate.data.split.split_file import EarlierSplit, SplitRow

LEFT_OUT = "duplicate-in-"  # start of a reason; the split of the equal image follows


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Split of each image; duplicates across splits are left out."""

    # a row for each record in order, or `Skipped` if it is left out
    results: tuple[SplitRow | Skipped, ...]
    held_out: tuple[str, ...]  # splits that were taken from the training images
    notes: tuple[str, ...] = ()  # notes about the use of an earlier split, as sentences

    @property
    def positions(self) -> list[int]:
        """Return the indices of the assigned images."""
        return [i for i, row in enumerate(self.results) if isinstance(row, SplitRow)]

    @property
    def rows(self) -> list[SplitRow]:
        """Return the `split.csv` rows of the assigned images."""
        return [row for row in self.results if isinstance(row, SplitRow)]

    @property
    def left_out(self) -> list[Skipped]:
        """Return the images that are left out."""
        return [row for row in self.results if isinstance(row, Skipped)]


def assign_splits(
    records: Sequence[Record],
    contents: Sequence[str],
    split_config: SplitConfig,
    earlier: EarlierSplit | None = None,
) -> Assignment:
    """Keep given splits, reuse earlier splits, and assign the remaining images.

    Without given splits, all images are assigned. Otherwise `val` is taken from the
    training images if it is missing, and `test` too if both are missing. If only some
    images have a split, the others are training images.
    """
    splits = [record.split for record in records]
    held_out = held_out_splits({split for split in splits if split})
    pool = [i for i, split in enumerate(splits) if split in (None, "train")]
    new = _Assigner(records, contents, split_config, splits)
    notes: tuple[str, ...] = ()
    if earlier is not None and held_out:
        notes = new.assign_from_earlier(earlier, pool, held_out)
    elif held_out:
        new.assign(pool, held_out)
    left_out_by_position = _duplicates_to_leave_out(pool, splits, records, contents)
    return Assignment(
        results=tuple(
            left_out_by_position.get(i)
            or SplitRow(
                path=record.path,
                label=record.label,
                split=splits[i] or "train",
                group=record.group or "",
                content=contents[i],
            )
            for i, record in enumerate(records)
        ),
        held_out=held_out,
        notes=notes,
    )


def held_out_splits(existing_splits: set[str]) -> tuple[str, ...]:
    """Return the missing splits (val, test) that are taken from the training images.

    Example:
        >>> held_out_splits(set()), held_out_splits({"train", "test"})
        (('val', 'test'), ('val',))
        >>> held_out_splits({"train", "val"})
        ()
    """
    if "val" in existing_splits:
        return ()
    return ("val",) if "test" in existing_splits else ("val", "test")


@dataclass(frozen=True)
class _Assigner:
    """Images and their splits; the methods change the list of splits in place."""

    records: Sequence[Record]
    contents: Sequence[str]
    split_config: SplitConfig
    splits: list[str | None]

    def assign(self, pool: Sequence[int], held_out: Sequence[str]) -> None:
        """Assign a split to the images in `pool`."""
        config = self.split_config
        groups = [self.records[i].group for i in pool]
        hashes = [self.contents[i] for i in pool]
        if config.exact:
            labels = [self.records[i].label for i in pool]
            assigned = exact_split(labels, hashes, groups, config, held_out)
        else:
            images = zip(hashes, groups, strict=True)
            numbers = (hash_number(config.seed, "split", h, g) for h, g in images)
            assigned = [split_of_number(n, config, held_out) for n in numbers]
        for i, split in zip(pool, assigned, strict=True):
            self.splits[i] = split

    def assign_from_earlier(
        self, earlier: EarlierSplit, pool: Sequence[int], held_out: Sequence[str]
    ) -> tuple[str, ...]:
        """Reuse the earlier splits of known images; split new images. Return notes."""
        records, contents = self.records, self.contents
        allowed = {"train", *held_out}
        previous = {i: earlier.split_of(records[i], contents[i]) for i in pool}
        new = [i for i, split in previous.items() if split not in allowed]
        reassigned = sum(previous[i] is not None for i in new)
        for i in pool:
            self.splits[i] = previous[i]
        # New images do not create a split that the earlier one does not have. Only
        # validation is required: it chooses the weights.
        self.assign(new, [s for s in held_out if s in earlier.splits or s == "val"])
        if "val" not in earlier.splits:
            old = [i for i in pool if previous[i] in allowed]
            self.assign([i for i in old if self.splits[i] == "train"], ("val",))
        missing = earlier.count_missing(records, contents)
        notes = [
            f"split of {earlier.origin}: "
            f"{count_text(len(pool) - len(new), 'image')} with the earlier split, "
            f"{count_text(len(new), 'new image')}, {missing:,} missing"
        ]
        if reassigned:
            text = count_text(reassigned, "earlier test image")
            notes.append(f"{text} now in train: assigned again")
        return tuple(notes)


def is_left_out(skip: Skipped) -> bool:
    """Return whether an image is left out as a duplicate of another group."""
    return skip.reason.startswith(LEFT_OUT)


def _duplicates_to_leave_out(
    pool: Sequence[int],
    splits: Sequence[str | None],
    records: Sequence[Record],
    contents: Sequence[str],
) -> dict[int, Skipped]:
    """Return images to leave out because an equal image is in val or test.

    Equal images without groups, or in one group, have the same split. Equal images of
    two groups may not: moving a whole group would move old images. So the copy in the
    less protected split is left out, and never a test image.
    """
    positions_by_content: dict[str, list[int]] = defaultdict(list)
    for i in pool:
        positions_by_content[contents[i]].append(i)
    left_out = {}
    for duplicates in positions_by_content.values():
        rank = {i: SPLITS.index(splits[i] or "train") for i in duplicates}
        best = max(duplicates, key=rank.__getitem__)
        for i in duplicates:
            if rank[i] < rank[best]:
                left_out[i] = Skipped(
                    path=records[i].path,
                    reason=f"{LEFT_OUT}{splits[best]}",
                    detail=records[best].path,
                )
    return left_out
