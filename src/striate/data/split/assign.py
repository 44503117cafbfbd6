"""Assign every image to train, val or test, by a given, earlier or new split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from striate.core.class_names import split_label
from striate.core.errors import DataError
from striate.core.format import count_text
from striate.data.sources.source import SPLITS, Record, Skipped
from striate.data.split.exact_counts import exact_split, indivisible_groups
from striate.data.split.hash_split import SplitConfig, hash_number, split_of_number
from striate.data.split.iterative_stratification import iterative_stratification
from striate.data.split.split_file import EarlierSplit, SplitRow

LEFT_OUT = "duplicate-in-"  # start of a reason; the split of the equal image follows

NAMES_SHOWN = 5  # classes that a note names


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
    *,
    multi_label: bool = False,
) -> Assignment:
    """Keep given splits, reuse earlier splits, and assign the remaining images.

    Without given splits, all images are assigned. Otherwise `val` is taken from the
    training images if it is missing, and `test` too if both are missing. If only some
    images have a split, the others are training images. With `multi_label`, labels
    have several classes, and exact counts use iterative stratification.
    """
    splits = [record.split for record in records]
    held_out = held_out_splits({split for split in splits if split})
    pool = [i for i, split in enumerate(splits) if split in (None, "train")]
    new = _Assigner(records, contents, split_config, splits, multi_label)
    notes: tuple[str, ...] = ()
    if earlier is not None and held_out:
        notes = new.assign_from_earlier(earlier, pool, held_out)
    elif earlier is not None:
        notes = (f"split of {earlier.origin}: not used, the data has its own splits",)
    elif held_out:
        notes = new.assign(pool, held_out)
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
    multi_label: bool

    def assign(self, pool: Sequence[int], held_out: Sequence[str]) -> tuple[str, ...]:
        """Assign a split to the images in `pool`; small classes by exact counts.

        Returns:
            A note that names the classes with exact counts, if they are small.
        """
        config = self.split_config
        low = round(config.smallest_class(held_out))
        small = set() if config.exact else self._small_classes(pool, low)
        exact = list(pool) if config.exact else self._positions_with(small, pool)
        labels, contents, groups = self._columns(exact)
        method = iterative_stratification if self.multi_label else None
        splits = exact_split(labels, contents, groups, config, held_out, method)
        for i, split in zip(exact, splits, strict=True):
            self.splits[i] = split
        self.assign_by_hash(sorted(set(pool) - set(exact)), held_out)
        return (_exact_note(small, low),) if small else ()

    def assign_by_hash(self, pool: Sequence[int], held_out: Sequence[str]) -> None:
        """Assign a split to the images in `pool` by their hashes."""
        config = self.split_config
        for i in pool:
            content, group = self.contents[i], self.records[i].group
            number = hash_number(config.seed, "split", content, group)
            self.splits[i] = split_of_number(number, config, held_out)

    def _small_classes(self, pool: Sequence[int], low: int) -> set[str]:
        """Return classes with under `low` different images; a group counts as one."""
        units = {
            (name, self.records[i].group or self.contents[i])
            for i in pool
            for name in self._classes_of(self.records[i].label)
        }
        counts = Counter(name for name, _ in units)
        return {label for label, count in counts.items() if count < low}

    def _classes_of(self, label: str) -> tuple[str, ...]:
        return split_label(label) if self.multi_label else (label,)

    def _positions_with(self, classes: set[str], pool: Sequence[int]) -> list[int]:
        """Return the images of these classes, and their copies and groups."""
        if not classes:
            return []
        labels, contents, groups = self._columns(pool)
        together = indivisible_groups(contents, groups)
        in_classes = [not classes.isdisjoint(self._classes_of(n)) for n in labels]
        inside = (g for g in together if any(in_classes[k] for k in g))
        return sorted(pool[k] for group in inside for k in group)

    def _columns(
        self, pool: Sequence[int]
    ) -> tuple[list[str], list[str], list[str | None]]:
        """Return labels, content hashes and groups of the images in `pool`."""
        records = [self.records[i] for i in pool]
        labels = [record.label for record in records]
        groups = [record.group for record in records]
        return labels, [self.contents[i] for i in pool], groups

    def assign_from_earlier(
        self, earlier: EarlierSplit, pool: Sequence[int], held_out: Sequence[str]
    ) -> tuple[str, ...]:
        """Reuse the earlier splits of known images; split new images. Return notes."""
        records, contents = self.records, self.contents
        allowed = {"train", *held_out}
        previous = {i: earlier.split_of(records[i], contents[i]) for i in pool}
        if pool and earlier.files and not any(previous.values()):
            raise _no_match_error(earlier, records[pool[0]].path)
        new = [i for i, split in previous.items() if split not in allowed]
        reassigned = sum(previous[i] is not None for i in new)
        for i in pool:
            self.splits[i] = previous[i]
        # New images do not create a split that the earlier one does not have. Only
        # validation is required: it chooses the weights.
        # By hash: exact counts of a few new images would be all training images.
        splits = [s for s in held_out if s in earlier.splits or s == "val"]
        assign = self.assign if self.split_config.exact else self.assign_by_hash
        assign(new, splits)
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


def _no_match_error(earlier: EarlierSplit, path: str) -> DataError:
    """Return the error for a split file of other images."""
    name = next(iter(earlier.files))
    what = f"the split file has none of these images: it has '{name}', not '{path}'"
    fix = "write the paths of the images relative to the folder or CSV of the data"
    return DataError(what, where=earlier.origin, fix=fix)


def _exact_note(classes: set[str], low: int) -> str:
    names = ", ".join(sorted(classes)[:NAMES_SHOWN])
    more = " …" if len(classes) > NAMES_SHOWN else ""
    count = count_text(len(classes), "class has", "classes have")
    return (
        f"{count} fewer than {low:,} different images, so exact counts of each split "
        f"are used: {names}{more}. If you add images, reuse this split with --split."
    )


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
