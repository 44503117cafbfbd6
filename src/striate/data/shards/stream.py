"""Sets in shards that nothing holds: split by content, shown shard by shard, mixed.

Memory does not grow with the images: what is known of them lies in index files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import torch

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.data.cache.cache_folder import PassingFolder
from striate.data.shards.index import ROW, Nearby, Shard, ShardOriginals, scan_shard
from striate.data.shards.tars import split_of
from striate.data.sources.source import SPLITS, Skipped
from striate.data.split.assign import beside_train
from striate.data.split.hash_split import SplitConfig, draw, place
from striate.data.split.split_file import SplitRow

_BUCKETS = 16  # passes over the index in the search for images under two labels
_CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A set in shards, ready to be shown.

    Args:
        labels: Class names in output order.
        originals: Images of each part.
        numbers: Class number of each, mapped from a file.
        blocks: Of each part, where a shard's images begin and end.
        skipped: What cannot be used.
        least: The smallest height and width.
        most: The largest.
        channels: 1 where every image is gray.
    """

    labels: ClassNames
    originals: Mapping[str, ShardOriginals] = field(repr=False)
    numbers: Mapping[str, torch.Tensor] = field(repr=False)
    blocks: Mapping[str, tuple[tuple[int, int], ...]] = field(repr=False)
    skipped: tuple[Skipped, ...] = field(repr=False)
    least: tuple[int, int]
    most: tuple[int, int]
    channels: int

    @property
    def count(self) -> int:
        """Return how many images there are."""
        return sum(len(split) for split in self.originals.values())


def open_stream(
    names: Sequence[str],
    *,
    index: Path,
    nearby: Nearby,
    split_config: SplitConfig,
    background: int,
    white_level: int,
) -> Stream:
    """Scan shards, or take their indices, and split them by content.

    Args:
        names: Shards in order.
        index: Folder of indices.
        nearby: Gives the shards' bytes.
        split_config: How images get the parts that no shard's name gives.
        background: As for `examine`.
        white_level: Likewise.

    Raises:
        DataError: A shard cannot be read, or there is nothing to learn.
    """
    index.mkdir(parents=True, exist_ok=True)
    shards = [scan_shard(n, index, nearby, background, white_level) for n in names]
    labels = ClassNames.of([label for shard in shards for label in shard.labels])
    if len(labels) < 2:
        what = f"{len(labels)} classes in {len(names)} shards: nothing to tell apart"
        fix = "name the class in .cls or .json beside each image, or in its folder"
        raise DataError(what, where=names[0], fix=fix)
    folder = PassingFolder()
    root = folder.path
    conflicts = _two_labels(shards, labels)
    blocks, seen, skipped = _deal(shards, labels, conflicts, split_config, root)
    splits = [split for split in SPLITS if blocks.get(split)]
    for split in ("train", "val"):
        if split not in splits:
            fix = "add images, or give another --val-fraction"
            raise DataError(f"the {split} split has no images", where=names[0], fix=fix)
    _check_classes(labels, seen)
    return Stream(
        labels=labels,
        originals={
            split: ShardOriginals(_rows(root, split), tuple(names), nearby, folder)
            for split in splits
        },
        numbers={p: _numbers(root, p) for p in splits},
        blocks={split: tuple(blocks[split]) for split in splits},
        skipped=(*(s for shard in shards for s in shard.skipped), *skipped),
        least=(min(s.least[0] for s in shards), min(s.least[1] for s in shards)),
        most=(max(s.most[0] for s in shards), max(s.most[1] for s in shards)),
        channels=max(shard.channels for shard in shards),
    )


def _rows(root: Path, split: str) -> Path:
    return root / f"{split}.rows"


def _numbers(root: Path, split: str) -> torch.Tensor:
    path = root / f"{split}.labels"
    size = path.stat().st_size // 8
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.int64)


def _two_labels(shards: Sequence[Shard], labels: ClassNames) -> set[bytes]:
    """Return what stands under two labels, a bucket of contents at a time."""
    conflicts: set[bytes] = set()
    for bucket in range(_BUCKETS):
        digit = ord(f"{bucket:x}")
        contents, numbers = [], []
        for shard in shards:
            rows = shard.rows()
            # The last digit: the first is not hexadecimal for images known as coded.
            shown = np.ascontiguousarray(rows["content"])
            last = shown.view(np.uint8).reshape(-1, ROW["content"].itemsize)
            mine = rows[last[:, -1] == digit]
            own = np.array([labels.index(name) for name in shard.labels], np.uint32)
            contents.append(mine["content"])
            numbers.append(own[mine["label"]] if len(mine) else own[:0])
        found, inverse = np.unique(np.concatenate(contents), return_inverse=True)
        low = np.full(len(found), len(labels), np.uint32)
        high = np.zeros(len(found), np.uint32)
        np.minimum.at(low, inverse, np.concatenate(numbers))
        np.maximum.at(high, inverse, np.concatenate(numbers))
        conflicts |= set(found[low != high].tolist())
    return conflicts


def _deal(
    shards: Sequence[Shard],
    labels: ClassNames,
    conflicts: set[bytes],
    split_config: SplitConfig,
    root: Path,
) -> tuple[dict[str, list[tuple[int, int]]], dict[str, set[int]], list[Skipped]]:
    """Write each part's rows and labels; return its blocks, classes, and the rest."""
    given = [split_of(shard.name) for shard in shards]
    beside = beside_train({split for split in given if split})
    blocks: dict[str, list[tuple[int, int]]] = {}
    counts: Counter[str] = Counter()
    seen: dict[str, set[int]] = {}
    skipped: list[Skipped] = []
    for number, shard in enumerate(shards):
        own = np.array([labels.index(name) for name in shard.labels], np.uint32)
        rows = np.array(shard.rows())
        rows["shard"] = number
        if len(rows):
            rows["label"] = own[rows["label"]]
        split = given[number] or ("train" if any(given) else None)
        if conflicts:
            kept = ~np.isin(rows["content"], list(conflicts)) | (split == "test")
            skipped += _conflicting(shard.name, rows[~kept])
            rows = rows[kept]
        if split not in (None, "train") or not beside:
            dealt = np.full(len(rows), split)
        else:
            dealt = _placed(rows["content"].tolist(), split_config, beside)
        for name in SPLITS:
            mine = rows[dealt == name]
            if not len(mine):
                continue
            with _rows(root, name).open("ab") as file:
                file.write(mine.tobytes())
            with (root / f"{name}.labels").open("ab") as file:
                file.write(mine["label"].astype(np.int64).tobytes())
            blocks.setdefault(name, []).append((counts[name], counts[name] + len(mine)))
            counts[name] += len(mine)
            seen.setdefault(name, set()).update(np.unique(mine["label"]).tolist())
    return blocks, seen, skipped


def _check_classes(labels: ClassNames, seen: Mapping[str, set[int]]) -> None:
    for split in seen:
        strange = sorted(seen[split] - seen["train"])
        if strange:
            names = ", ".join(repr(labels[i]) for i in strange[:5])
            what = f"the {split} split has classes that training has not: {names}"
            raise DataError(what, fix="add training images of them")


def _conflicting(name: str, rows: np.ndarray) -> Iterator[Skipped]:
    for row in rows:
        detail = "the same image stands under another label, too"
        path = f"{name}#{int(row['offset'])}"
        yield Skipped(path=path, reason="two-labels", detail=detail)


def _placed(
    contents: Sequence[bytes], split_config: SplitConfig, beside: Sequence[str]
) -> np.ndarray:
    """Give every content its part, as in a folder: equal ones the same."""
    numbers = (
        draw(split_config.seed, "split", content.decode()) for content in contents
    )
    return np.array(
        [place(number, split_config, beside) for number in numbers], dtype="U5"
    )


class LazyPaths(Sequence[str]):
    """Where images of shards come from, read when asked for."""

    def __init__(self, originals: ShardOriginals) -> None:
        self._originals = originals

    def __len__(self) -> int:
        return len(self._originals)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """Return `shard#offset` of an image."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._originals.path(_counted(index, len(self)))


class LazyRows(Sequence[SplitRow]):
    """The lines of `split.csv`, read when asked for."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __len__(self) -> int:
        return self._stream.count

    def __iter__(self) -> Iterator[SplitRow]:
        """Yield the rows part by part, a few thousand in memory."""
        for split, originals in self._stream.originals.items():
            with originals.index.open("rb") as file:
                while raw := file.read(_CHUNK * ROW.itemsize):
                    for row in np.frombuffer(raw, ROW):
                        yield self._row(row, split, originals)

    def _row(self, row: np.void, split: str, originals: ShardOriginals) -> SplitRow:
        return SplitRow(
            path=f"{originals.shards[int(row['shard'])]}#{int(row['offset'])}",
            label=self._stream.labels[int(row["label"])],
            split=split,
            group="",
            content=bytes(row["content"]).decode(),
        )

    @overload
    def __getitem__(self, index: int) -> SplitRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SplitRow]: ...
    def __getitem__(self, index: int | slice) -> SplitRow | Sequence[SplitRow]:
        """Return one row, or some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        left = _counted(index, len(self))
        for split, originals in self._stream.originals.items():
            if left < len(originals):
                return self._row(originals.row(left), split, originals)
            left -= len(originals)
        raise IndexError(index)


def _counted(index: int, length: int) -> int:
    """Return a place from the front; a negative one was counted from the end.

    Raises:
        IndexError: There is no such place.
    """
    if not -length <= index < length:
        raise IndexError(index)
    return index % length
