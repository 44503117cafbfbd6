"""Every used picture gets a part: the one it was given, or one dealt by `split`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from striate.core.errors import DataError, SettingError
from striate.core.spec import Labels
from striate.data.sources.source import PARTS, Record
from striate.data.split import split

FEW = 10  # below this many training pictures a class's figures mean little


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRow:
    """A line of `split.csv`: a used picture, its part, and what identifies it.

    `content` is a hash of what it shows, `sha256` of its file (empty without one).
    """

    path: str
    label: str
    part: str
    group: str
    content: str
    sha256: str = ""


def assign(
    records: Sequence[Record],
    contents: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
) -> list[SplitRow]:
    """Keep given parts and deal out those that are missing.

    With no part given, all pictures are dealt. Where some are given, `val` is dealt
    from the training pictures if there is none, and `test` too if neither is given.
    A picture without a part beside pictures with one counts as training.
    """
    labels = [record.label for record in records]
    _check_counts(Counter(labels))
    parts = [record.part for record in records]
    if any(parts):
        parts = [part or "train" for part in parts]
    wanted = missing_parts(set(parts) - {None}, fractions)
    if wanted:
        pool = [i for i, part in enumerate(parts) if part in (None, "train")]
        dealt = split(
            [labels[i] for i in pool],
            [contents[i] for i in pool],
            [records[i].group for i in pool],
            wanted,
            seed,
        )
        for i, part in zip(pool, dealt, strict=True):
            parts[i] = part
    return [
        SplitRow(
            path=r.path, label=r.label, part=p or "", group=r.group or "", content=c
        )
        for r, p, c in zip(records, parts, contents, strict=True)
    ]


def missing_parts(
    given: set[str | None], fractions: Mapping[str, float]
) -> dict[str, float]:
    """Return the shares to deal, or nothing where every part is there."""
    if not given:
        return dict(fractions)
    missing = {"train"}
    if "val" not in given:
        missing |= {"val"} if "test" in given else {"val", "test"}
    if missing == {"train"}:
        return {}
    rest = {part: fractions[part] for part in missing - {"train"}}
    return {"train": 1 - sum(rest.values()), **rest}


def check_fractions(val: float, test: float) -> dict[str, float]:
    """Return the three shares.

    Raises:
        SettingError: Nothing would be left to validate or to train on.
    """
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        what = f"validation and test shares must leave some to train on: {val} + {test}"
        fix = "use for example --val-fraction 0.15 --test-fraction 0.25"
        raise SettingError(what, where="--val-fraction, --test-fraction", fix=fix)
    return {"train": 1 - val - test, "val": val, "test": test}


def _check_counts(counts: Mapping[str, int]) -> None:
    if len(counts) < 2:
        only = next(iter(counts))
        what = f"one class only ('{only}'): there is nothing to tell apart"
        raise DataError(what, fix="add pictures of at least a second class")
    single = [label for label, count in counts.items() if count == 1]
    if single:
        names = ", ".join(repr(label) for label in single[:5])
        what = f"{len(single)} of {len(counts)} classes have one picture: {names}"
        fix = "add pictures, or remove the class: one picture cannot train and validate"
        raise DataError(what, fix=fix)


def check_classes(rows: Sequence[SplitRow], labels: Labels) -> Labels:
    """Return the classes that have pictures, in output order.

    Raises:
        DataError: A part is empty, or shows classes that training has not.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        classes[row.part].add(row.label)
    for part in ("train", "val"):
        if not classes[part]:
            fix = "add pictures, or another split"
            raise DataError(f"the {part} part has no pictures", fix=fix)
    for part in ("val", "test"):
        strange = sorted(classes[part] - classes["train"])
        if strange:
            names = ", ".join(repr(label) for label in strange[:5])
            what = f"the {part} part has classes that training has not: {names}"
            fix = "add training pictures of them, rename them, or remove them"
            raise DataError(what, fix=fix)
    return Labels(tuple(name for name in labels.names if name in classes["train"]))


def warnings_of(rows: Sequence[SplitRow]) -> tuple[str, ...]:
    """Return sentences about leaks between parts and classes too small to judge."""
    return (*_leaks(rows), *_small(rows))


def _leaks(rows: Sequence[SplitRow]) -> list[str]:
    where: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        where[row.content][row.part].append(row.path)
    sentences = []
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = [parts for parts in where.values() if a in parts and b in parts]
        if not shared:
            continue
        count = sum(len(parts[b]) for parts in shared)
        pair = f"{shared[0][a][0]} = {shared[0][b][0]}"
        sentences.append(f"{count} pictures of {b} are also in {a}, as given: {pair}")
    return sentences


def _small(rows: Sequence[SplitRow]) -> list[str]:
    train = Counter(row.label for row in rows if row.part == "train")
    small = sorted(label for label, count in train.items() if count < FEW)
    if not small:
        return []
    names = ", ".join(f"{label} ({train[label]})" for label in small[:5])
    return [f"{len(small)} classes have under {FEW} training pictures: {names}"]


def part_order(parts: set[str]) -> list[str]:
    """Return the parts that exist, in the order train, val, test."""
    return [part for part in PARTS if part in parts]
