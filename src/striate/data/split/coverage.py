"""Does a split admit the work? What must be refused, and what a user should know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

from striate.core.errors import DataError
from striate.core.spec import Labels
from striate.data.sources.source import SPLITS, Skipped
from striate.data.split.split_file import SplitRow

FEW = 10  # below this many training images a class's figures mean little
UNEVEN = 10  # from this ratio of the largest class to the smallest, accuracy misleads
NAMED = 5

EXACTLY = (
    "deal by count, `striate data split DATA --exact --out split.csv`, and train with "
    "--split split.csv; or add images; or try another --seed"
)


def check_counts(labels: Iterable[str]) -> None:
    """Refuse what no split could serve.

    Raises:
        DataError: One class only, or classes of a single image.
    """
    counts = Counter(labels)
    if len(counts) < 2:
        only = next(iter(counts))
        what = f"one class only ('{only}'): there is nothing to tell apart"
        raise DataError(what, fix="add images of at least a second class")
    single = [label for label, count in counts.items() if count == 1]
    if single:
        names = ", ".join(repr(label) for label in single[:NAMED])
        what = f"{len(single)} of {len(counts)} classes have one image: {names}"
        fix = "add images, or remove the class: one image cannot train and validate"
        raise DataError(what, fix=fix)


def check_classes(
    rows: Sequence[SplitRow], labels: Labels, dealt: Collection[str] = ()
) -> Labels:
    """Return the classes that have training images, in output order.

    Args:
        rows: The split.
        labels: All classes.
        dealt: The parts that were not given but dealt.

    Raises:
        DataError: A part is empty, or shows classes that training has not.
    """
    counts = _by_split(rows)
    for split in ("train", "val"):
        if not counts[split]:
            fix = EXACTLY if dealt else "add images, or another split"
            raise DataError(f"the {split} split has no images", fix=fix)
    ours = sum((counts[split] for split in dealt), counts["train"])
    if without := _listed(ours, counts["train"]):
        what = f"no training image falls to {without[0]}: {without[1]}"
        raise DataError(what, fix=EXACTLY)
    for split in ("val", "test"):
        strange = sorted(counts[split].keys() - counts["train"].keys())
        if strange:
            names = ", ".join(repr(label) for label in strange[:NAMED])
            what = f"the {split} split has classes that training has not: {names}"
            fix = "add training images of them, rename them, or remove them"
            raise DataError(what, fix=fix)
    return Labels(tuple(name for name in labels.names if name in counts["train"]))


def _by_split(rows: Sequence[SplitRow]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for row in rows:
        counts.setdefault(row.split, Counter())[row.label] += 1
    return counts


def _listed(
    classes: Mapping[str, int], present: Mapping[str, int]
) -> tuple[str, str] | None:
    """Name the classes that are not present, with how many images they have."""
    missing = sorted(classes.keys() - present.keys())
    if not missing:
        return None
    names = ", ".join(f"{label} ({classes[label]})" for label in missing[:NAMED])
    rest = " …" if len(missing) > NAMED else ""
    return f"{len(missing):,} of {len(classes):,} classes", names + rest


def warnings_of(
    rows: Sequence[SplitRow], left_out: Sequence[Skipped] = ()
) -> tuple[str, ...]:
    """Return sentences on leaks between parts, and on classes too small to judge."""
    counts = _by_split(rows)
    return (
        *_leaks(rows),
        *_left_out(left_out),
        *_unseen(counts),
        *_small(counts["train"]),
        *_uneven(counts["train"]),
    )


def _leaks(rows: Sequence[SplitRow]) -> list[str]:
    twice = _in_several_splits(rows)
    if not twice:
        return []
    where: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.content in twice:
            where[row.content][row.split].append(row.path)
    sentences = []
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = [splits for splits in where.values() if a in splits and b in splits]
        if not shared:
            continue
        count = sum(len(splits[b]) for splits in shared)
        pair = f"{shared[0][a][0]} = {shared[0][b][0]}"
        sentences.append(f"{count} images of {b} are also in {a}, as given: {pair}")
    return sentences


def _in_several_splits(rows: Sequence[SplitRow]) -> set[str]:
    contents = {
        split: {row.content for row in rows if row.split == split} for split in SPLITS
    }
    pairs = combinations(contents.values(), 2)
    return set().union(*(one & other for one, other in pairs))


def _left_out(twins: Sequence[Skipped]) -> list[str]:
    if not twins:
        return []
    pair = f"{twins[0].path} = {twins[0].detail}"
    what = "images left out, because equal ones of another group are judged on"
    return [f"{what}: {len(twins):,}, first {pair}"]


def _unseen(counts: Mapping[str, Counter[str]]) -> list[str]:
    """Say which classes validation or test cannot judge."""
    everywhere = sum(counts.values(), Counter[str]())
    sentences = []
    for split in ("val", "test"):
        missing = _listed(everywhere, counts[split]) if counts[split] else None
        if missing:
            said = f"{split} has no image of {missing[0]} and says nothing of them"
            sentences.append(f"{said}: {missing[1]}")
    return sentences


def _small(train: Mapping[str, int]) -> list[str]:
    small = sorted(label for label, count in train.items() if count < FEW)
    if not small:
        return []
    names = ", ".join(f"{label} ({train[label]})" for label in small[:NAMED])
    return [f"{len(small):,} classes have under {FEW} training images: {names}"]


def _uneven(train: Counter[str]) -> list[str]:
    (most, many), (least, few) = train.most_common()[0], train.most_common()[-1]
    if many < UNEVEN * few:
        return []
    ratio = f"{most} has {many:,} training images, {least} {few:,}"
    advice = "read the balanced accuracy; --class-weights auto evens them out"
    return [f"uneven classes, {many / few:,.0f} to 1: {ratio}; {advice}"]


def split_order(splits: set[str]) -> list[str]:
    """Return the parts that exist, in the order train, val, test."""
    return [split for split in SPLITS if split in splits]
