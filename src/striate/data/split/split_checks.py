"""Checks of a split: errors that prevent training, and warnings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.core.format import count_text
from striate.data.sources.source import SPLITS, Skipped
from striate.data.split.split_file import SplitRow

FEW = 10  # with fewer training images, the metrics of a class mean little
IMBALANCE_RATIO = 10  # largest to smallest class, from which accuracy misleads
NAMES_SHOWN = 5
ONE_LABEL = ClassNames(())  # divides no label: each is the name of one class

EXACT_FIX = (
    "make a split with `striate data split DATA --exact --out split.csv` and train "
    "with --split split.csv; or add images; or use another --seed"
)


def check_counts(
    labels: Iterable[str], classes: ClassNames = ONE_LABEL, class_folders: str = ""
) -> None:
    """Raise an error if there are too few classes or images to split.

    Args:
        labels: The labels of the images.
        classes: Divides labels into class names.
        class_folders: Folder that has the class folders if it is not the given folder.
    """
    counts = classes.count(labels)
    if not counts:
        what = "no image has a label: there are no classes to learn"
        raise DataError(what, fix="add labels, such as cat;dog for two classes")
    if len(counts) < 2 and not classes.multi_label:
        only = next(iter(counts))
        what = f"only one class ('{only}'): a classifier needs at least two"
        fix = "add images of a second class"
        if class_folders:
            what = f"the class folders are one folder deeper, in {class_folders}"
            fix = f"use {class_folders} as DATA"
        raise DataError(what, fix=fix)
    single = [label for label, count in counts.items() if count == 1]
    if single:
        names = ", ".join(repr(label) for label in single[:NAMES_SHOWN])
        what = f"classes with only one image ({len(single)} of {len(counts)}): {names}"
        need = "train and val need at least one image each"
        raise DataError(what, fix=f"add images or remove the class: {need}")


def check_classes(
    rows: Sequence[SplitRow], labels: ClassNames, held_out: Collection[str] = ()
) -> ClassNames:
    """Return the classes with training images, in the order of the network's outputs.

    Raises:
        DataError: A split is empty, or has classes without training images.
    """
    counts = _by_split(rows, labels)
    for split in ("train", "val"):
        if not any(row.split == split for row in rows):
            raise _empty_split_error(split, rows, held_out)
    assigned = sum((counts[split] for split in held_out), counts["train"])
    if without := _missing_classes(assigned, counts["train"]):
        what = f"no training images of {without[0]}: {without[1]}"
        raise DataError(what, fix=EXACT_FIX)
    for split in ("val", "test"):
        unknown = sorted(counts[split].keys() - counts["train"].keys())
        if unknown:
            names = ", ".join(repr(label) for label in unknown[:NAMES_SHOWN])
            what = f"the {split} split has classes without training images: {names}"
            fix = "add training images, rename the classes, or remove them"
            raise DataError(what, fix=fix)
    trained = tuple(name for name in labels.names if name in counts["train"])
    return replace(labels, names=trained)


def _empty_split_error(
    split: str, rows: Sequence[SplitRow], held_out: Collection[str]
) -> DataError:
    """Return the error for a split without images; name copies as the reason."""
    what = f"the {split} split has no images"
    fix = EXACT_FIX if held_out else "add images, or use another split"
    if split == "train" and len(held_out) < 2:  # the data defines its splits
        names = " and ".join(split_order({row.split for row in rows}))
        what += f": the data has only {names}"
        fix = "use data with training images, in the folder train or the split train"
        return DataError(what, fix=fix)
    different = len({row.content for row in rows})
    if held_out and 2 * different <= len(rows):
        count = f"{different:,} different image{'' if different == 1 else 's'}"
        what += f": the {len(rows):,} files are copies of {count}"
        what += ", and copies stay in one split"
        fix = "add different images; `striate data check DATA` lists the copies"
    return DataError(what, fix=fix)


def _by_split(rows: Sequence[SplitRow], classes: ClassNames) -> dict[str, Counter[str]]:
    """Return the number of images of each class, by split."""
    labels: dict[str, list[str]] = {split: [] for split in SPLITS}
    for row in rows:
        labels.setdefault(row.split, []).append(row.label)
    return {split: classes.count(texts) for split, texts in labels.items()}


def _missing_classes(
    classes: Mapping[str, int], present: Mapping[str, int]
) -> tuple[str, str] | None:
    """Return the count and the names of missing classes as texts, or None."""
    missing = sorted(classes.keys() - present.keys())
    if not missing:
        return None
    names = ", ".join(f"{label} ({classes[label]})" for label in missing[:NAMES_SHOWN])
    rest = " …" if len(missing) > NAMES_SHOWN else ""
    return (
        f"{len(missing):,} of {count_text(len(classes), 'class', 'classes')}",
        names + rest,
    )


def split_warnings(
    rows: Sequence[SplitRow],
    left_out: Sequence[Skipped] = (),
    classes: ClassNames = ONE_LABEL,
) -> tuple[str, ...]:
    """Return warnings about leaks between splits, small classes and imbalance."""
    counts = _by_split(rows, classes)
    warnings = _leaks(rows)
    if left_out:
        pair = f"{left_out[0].path} = {left_out[0].detail}"
        why = "an equal image of another group is in val or test"
        count = f"{count_text(len(left_out), 'image')} left out"
        warnings.append(f"{count}, because {why}; first: {pair}")
    warnings += _classes_without_images(counts)
    train = sum(row.split == "train" for row in rows)
    warnings += _in_every_image(counts["train"], train) if classes.multi_label else []
    measure = "mAP or the macro F1" if classes.multi_label else "balanced accuracy"
    imbalance = _imbalance(counts["train"], measure)
    return (*warnings, *_small(counts["train"]), *imbalance)


def _leaks(rows: Sequence[SplitRow]) -> list[str]:
    contents = {s: {row.content for row in rows if row.split == s} for s in SPLITS}
    pairs = combinations(contents.values(), 2)
    repeated = set().union(*(first & second for first, second in pairs))
    if not repeated:
        return []
    where: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.content in repeated:
            where[row.content][row.split].append(row.path)
    sentences = []
    for a, b in combinations(SPLITS, 2):
        shared = [splits for splits in where.values() if a in splits and b in splits]
        if not shared:
            continue
        count = sum(len(splits[b]) for splits in shared)
        pair = f"{shared[0][a][0]} = {shared[0][b][0]}"
        verb = "is" if count == 1 else "are"
        images = f"{count_text(count, 'image')} of {b} {verb} also in {a}"
        text = f"{images} (given splits): {pair}"
        sentences.append(text)
    return sentences


def _classes_without_images(counts: Mapping[str, Counter[str]]) -> list[str]:
    """Return warnings about classes without images in val or test."""
    all_counts = sum(counts.values(), Counter[str]())
    sentences = []
    for split in ("val", "test"):
        missing = _missing_classes(all_counts, counts[split]) if counts[split] else None
        if missing:
            text = f"{split} has no images of {missing[0]} (not evaluated)"
            sentences.append(f"{text}: {missing[1]}")
    return sentences


def _small(train: Mapping[str, int]) -> list[str]:
    small = sorted(label for label, count in train.items() if count < FEW)
    if not small:
        return []
    names = ", ".join(f"{label} ({train[label]})" for label in small[:NAMES_SHOWN])
    count = count_text(len(small), "class has", "classes have")
    return [f"{count} fewer than {FEW} training images: {names}"]


def label_notes(rows: Sequence[SplitRow], classes: ClassNames) -> tuple[str, ...]:
    """Return a note on the number of labels per image, for several labels."""
    if not classes.multi_label:
        return ()
    counts = [len(classes.classes_of(row.label)) for row in rows]
    empty = count_text(counts.count(0), "image")
    mean = sum(counts) / len(counts)
    text = f"several labels per image (multi-label): {mean:.1f} on average"
    return (f"{text}, {empty} with none of the classes",)


def _in_every_image(train: Mapping[str, int], images: int) -> list[str]:
    """Return a warning about classes that no training image lacks."""
    full = sorted(label for label, count in train.items() if count == images)
    if not full:
        return []
    names = ", ".join(full[:NAMES_SHOWN])
    text = f"every training image has the class {names}"
    return [f"{text}: the network cannot learn what images without it look like"]


def _imbalance(train: Counter[str], measure: str) -> list[str]:
    (largest, many), (smallest, few) = train.most_common()[0], train.most_common()[-1]
    if many < IMBALANCE_RATIO * few:
        return []
    ratio = f"{largest} has {count_text(many, 'training image')}, {smallest} {few:,}"
    advice = f"use the {measure}, or train with --class-weights auto"
    return [f"imbalanced classes ({many / few:,.0f}:1): {ratio}; {advice}"]


def split_order(splits: set[str]) -> list[str]:
    """Sort splits in the order train, val, test."""
    return [split for split in SPLITS if split in splits]
