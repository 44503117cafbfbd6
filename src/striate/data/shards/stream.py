"""Streaming of tar shards that are too large for memory and the cache.

Memory use does not grow with the number of images: the image index is on the disk.
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
from striate.core.format import count_text
from striate.data.cache.cache_folder import TemporaryFolder
from striate.data.shards.index import ROW, LocalShards, Shard, ShardImages, scan_shard
from striate.data.shards.tars import split_of_shard
from striate.data.sources.source import SPLITS, Skipped
from striate.data.split.assign import held_out_splits
from striate.data.split.hash_split import SplitConfig, hash_number, split_of_number
from striate.data.split.split_file import SplitRow

_BUCKETS = 16  # passes over the index in the search for images with two labels
_CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class ShardStream:
    """A data set in shards, scanned and split."""

    labels: ClassNames  # class names in output order
    originals: Mapping[str, ShardImages] = field(repr=False)  # encoded images by split
    # class indices by split, mapped from a file
    numbers: Mapping[str, torch.Tensor] = field(repr=False)
    # (start, end) image indices of each shard, by split
    blocks: Mapping[str, tuple[tuple[int, int], ...]] = field(repr=False)
    skipped: tuple[Skipped, ...] = field(repr=False)  # files that cannot be used
    min_sides: tuple[int, int]  # smallest height and smallest width
    max_sides: tuple[int, int]  # largest height and largest width
    channels: int  # 1 if every image is gray, else the largest channel count

    @property
    def count(self) -> int:
        """Return the number of images."""
        return sum(len(split) for split in self.originals.values())


def open_shard_stream(
    names: Sequence[str],
    *,
    index: Path,
    local_shards: LocalShards,
    split_config: SplitConfig,
    background: int,
    white_level: int,
) -> ShardStream:
    """Scan shards (or read their indexes), and split the images by image hash.

    Raises:
        DataError: A shard cannot be read, or there are fewer than two classes.
    """
    index.mkdir(parents=True, exist_ok=True)
    shards = [
        scan_shard(n, index, local_shards, background, white_level) for n in names
    ]
    labels = ClassNames.of([label for shard in shards for label in shard.labels])
    if len(labels) < 2:
        what = (
            f"{count_text(len(labels), 'class', 'classes')} in "
            f"{count_text(len(names), 'shard')}; at least 2 are needed"
        )
        fix = "give each image a .cls or .json file, or put it into a class folder"
        raise DataError(what, where=names[0], fix=fix)
    folder = TemporaryFolder()
    root = folder.path
    conflicts = _label_conflicts(shards, labels)
    blocks, classes, skipped = _write_splits(
        shards, labels, conflicts, split_config, root
    )
    splits = [split for split in SPLITS if blocks.get(split)]
    for split in ("train", "val"):
        if split not in splits:
            fix = "add images, or change --val-fraction"
            raise DataError(f"the {split} split has no images", where=names[0], fix=fix)
    _check_classes(labels, classes)
    return ShardStream(
        labels=labels,
        originals={
            s: ShardImages(root / f"{s}.rows", tuple(names), local_shards, folder)
            for s in splits
        },
        numbers={split: _map_labels(root / f"{split}.labels") for split in splits},
        blocks={split: tuple(blocks[split]) for split in splits},
        skipped=(*(s for shard in shards for s in shard.skipped), *skipped),
        min_sides=tuple(map(min, zip(*(s.min_sides for s in shards), strict=True))),
        max_sides=tuple(map(max, zip(*(s.max_sides for s in shards), strict=True))),
        channels=max(shard.channels for shard in shards),
    )


def _map_labels(path: Path) -> torch.Tensor:
    size = path.stat().st_size // 8
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.int64)


def _class_indices(shard: Shard, rows: np.ndarray, labels: ClassNames) -> np.ndarray:
    """Return the index of each row's class in the class names of the whole data set."""
    numbers = np.array([labels.index(name) for name in shard.labels], np.uint32)
    return numbers[rows["label"]] if len(rows) else numbers[:0]


def _label_conflicts(shards: Sequence[Shard], labels: ClassNames) -> set[bytes]:
    """Return the hashes of images that occur with more than one label."""
    conflicts: set[bytes] = set()
    for bucket in range(_BUCKETS):
        digit = ord(f"{bucket:x}")
        contents, numbers = [], []
        for shard in shards:
            rows = shard.rows()
            # The last digit, because the first is a letter for hashes of coded bytes.
            hashes = np.ascontiguousarray(rows["content"])
            last = hashes.view(np.uint8).reshape(-1, ROW["content"].itemsize)
            in_bucket = rows[last[:, -1] == digit]
            contents.append(in_bucket["content"])
            numbers.append(_class_indices(shard, in_bucket, labels))
        unique, inverse = np.unique(np.concatenate(contents), return_inverse=True)
        low = np.full(len(unique), len(labels), np.uint32)
        high = np.zeros(len(unique), np.uint32)
        np.minimum.at(low, inverse, np.concatenate(numbers))
        np.maximum.at(high, inverse, np.concatenate(numbers))
        conflicts |= set(unique[low != high].tolist())
    return conflicts


def _write_splits(
    shards: Sequence[Shard],
    labels: ClassNames,
    conflicts: set[bytes],
    split_config: SplitConfig,
    root: Path,
) -> tuple[dict[str, list[tuple[int, int]]], dict[str, set[int]], list[Skipped]]:
    """Write each split's index rows; return row ranges, classes and skipped images."""
    named_splits = [split_of_shard(shard.name) for shard in shards]
    assigned_splits = held_out_splits({split for split in named_splits if split})
    blocks: dict[str, list[tuple[int, int]]] = {}
    counts: Counter[str] = Counter()
    classes: dict[str, set[int]] = {}
    skipped: list[Skipped] = []
    for number, shard in enumerate(shards):
        rows = np.array(shard.rows())
        rows["shard"] = number
        rows["label"] = _class_indices(shard, rows, labels)
        split = named_splits[number] or ("train" if any(named_splits) else None)
        if conflicts:
            usable = ~np.isin(rows["content"], list(conflicts)) | (split == "test")
            skipped += [
                Skipped(
                    path=f"{shard.name}#{int(row['offset'])}",
                    reason="two-labels",
                    detail="the same image also has another label",
                )
                for row in rows[~usable]
            ]
            rows = rows[usable]
        if split not in (None, "train") or not assigned_splits:
            split_of_row = np.full(len(rows), split)
        else:
            split_of_row = _assign_splits(
                rows["content"].tolist(), split_config, assigned_splits
            )
        for name in SPLITS:
            members = rows[split_of_row == name]
            if not len(members):
                continue
            with (root / f"{name}.rows").open("ab") as file:
                file.write(members.tobytes())
            with (root / f"{name}.labels").open("ab") as file:
                file.write(members["label"].astype(np.int64).tobytes())
            start = counts[name]
            counts[name] += len(members)
            blocks.setdefault(name, []).append((start, counts[name]))
            classes.setdefault(name, set()).update(np.unique(members["label"]).tolist())
    return blocks, classes, skipped


def _check_classes(labels: ClassNames, classes: Mapping[str, set[int]]) -> None:
    for split in classes:
        unknown = sorted(classes[split] - classes["train"])
        if unknown:
            names = ", ".join(repr(labels[i]) for i in unknown[:5])
            what = f"the {split} split has classes without training images: {names}"
            raise DataError(what, fix="add training images of these classes")


def _assign_splits(
    contents: Sequence[bytes], split_config: SplitConfig, assigned_splits: Sequence[str]
) -> np.ndarray:
    """Assign a split to every image hash; equal images get the same split."""
    seed = split_config.seed
    numbers = [hash_number(seed, "split", content.decode()) for content in contents]
    splits = [split_of_number(n, split_config, assigned_splits) for n in numbers]
    return np.array(splits, dtype="U5")


class LazyPaths(Sequence[str]):
    """Sequence of the paths of images in shards, read from the index when accessed."""

    def __init__(self, originals: ShardImages) -> None:
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
        return self._originals.path(_from_front(index, len(self)))


class LazySplitRows(Sequence[SplitRow]):
    """Rows of `split.csv` for images in shards, read from the index when accessed."""

    def __init__(self, stream: ShardStream) -> None:
        self._stream = stream

    def __len__(self) -> int:
        return self._stream.count

    def __iter__(self) -> Iterator[SplitRow]:
        """Yield all rows, ordered by split; the index is read in large blocks."""
        for split, originals in self._stream.originals.items():
            with originals.index.open("rb") as file:
                while raw := file.read(_CHUNK * ROW.itemsize):
                    for row in np.frombuffer(raw, ROW):
                        yield self._row(row, split, originals)

    def _row(self, row: np.void, split: str, originals: ShardImages) -> SplitRow:
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
        """Return the row at an index, or a list of rows for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        offset = _from_front(index, len(self))
        for split, originals in self._stream.originals.items():
            if offset < len(originals):
                return self._row(originals.row(offset), split, originals)
            offset -= len(originals)
        raise IndexError(index)


def _from_front(index: int, length: int) -> int:
    """Convert a negative index, which counts from the end, to a non-negative index."""
    if not -length <= index < length:
        raise IndexError(index)
    return index % length
