"""From what the user typed to parts ready for training, every file accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from striate.core.errors import DataError
from striate.core.spec import WHITE, Labels, Preprocess
from striate.data.assign import (
    SplitRow,
    assign,
    check_classes,
    check_fractions,
    part_order,
    warnings_of,
)
from striate.data.choose import choose_preprocess
from striate.data.develop import Developed, develop
from striate.data.lazy import LazyPixels
from striate.data.part import Part
from striate.data.preprocess import statistics
from striate.data.rows import Rows, some
from striate.data.scan import MISSING, Census, Tick, take_census, two_labels
from striate.data.shards.tars import is_shards
from striate.data.sources.find import find_source
from striate.data.sources.named import NAMED
from striate.data.sources.remote import is_remote
from striate.data.sources.source import Skipped, Source
from striate.data.store.cache import AUTO, DEFAULT_GB, open_cache
from striate.data.twins import united


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Pictures in parts, with everything needed to treat new ones alike.

    `seen` files are used, quarantined (should have worked and did not) or ignored
    (by rule no pictures of the set); the three always add up. `origin` is where they
    can be read again: a name or an absolute path, empty for pictures from memory.
    """

    name: str
    origin: str
    labels: Labels
    preprocess: Preprocess
    parts: Mapping[str, Part] = field(repr=False)
    rows: Sequence[SplitRow] = field(repr=False)
    quarantined: tuple[Skipped, ...] = field(default=(), repr=False)
    ignored: tuple[Skipped, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Return how many classes there are."""
        return len(self.labels)

    @property
    def in_chans(self) -> int:
        """Return the channels of the network's input."""
        return self.preprocess.channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Return the (height, width) of the network's input."""
        return self.preprocess.height, self.preprocess.width

    @property
    def seen(self) -> int:
        """Return how many files were met."""
        return len(self.rows) + len(self.quarantined) + len(self.ignored)

    def part(self, name: str) -> Part:
        """Return a part.

        Raises:
            DataError: The data has no such part; lists those it has.
        """
        if name not in self.parts:
            have = ", ".join(self.parts)
            raise DataError(f"'{self.name}' has no {name} part, only {have}")
        return self.parts[name]


def load_data(
    data: str | Path | Source,
    *,
    image_size: int | tuple[int, int] | None = None,
    in_chans: int | None = None,
    resize: str = "squash",
    background: int = 255,
    white: int = WHITE,
    jpeg: str = "reduced",
    normalise: str = "data",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    seed: int = 0,
    margin: float = 1.0,
    workers: int = 0,
    cache: str = AUTO,
    cache_gb: float = DEFAULT_GB,
    preprocess: Preprocess | None = None,
    given_split: Mapping[str, str] | None = None,
    given_hashes: Mapping[str, str] | None = None,
    tick: Tick | None = None,
) -> ImageData:
    """Read pictures, check them, and split them where they are not.

    Args:
        data: A named set, a folder, a CSV, IDX files, or a source of arrays.
        image_size: Input side or (height, width) in pixels; the pictures' own size
            where they all share one, else 64.
        in_chans: 1 or 3; grey where every picture is grey.
        resize: `squash`, `crop` or `pad`, see `Preprocess`.
        background: Grey level under transparency and padding.
        white: The 16-bit grey value that becomes 255.
        jpeg: `reduced` or `full`, see `Preprocess`.
        normalise: `data` measures mean and deviation on the training part, `imagenet`
            takes those of public weights, `none` gives v/255.
        mean: Use these instead, one a channel or one for all; with `std`.
        std: Likewise.
        val_fraction: Share for validation of all pictures that have no part.
        test_fraction: Share for the test, where no test part is given.
        seed: Deals the split.
        margin: Also hold training pictures at so many times the input's sides, for
            crops to be cut from.
        workers: Processes that decode, for sets that neither cache nor memory hold.
        cache: `auto`, `off`, or a folder to keep decoded pictures in.
        cache_gb: The most it may hold, in 10⁹ bytes.
        preprocess: Use this, whole, in place of the settings above.
        given_split: Parts by path, as an earlier `split.csv` had them.
        given_hashes: SHA-256 by path, likewise; changed files are quarantined.
        tick: Called with (done, all) while decoding.

    Raises:
        DataError: The data does not admit training; says why and what to do.

    Example:
        >>> digits = load_data("digits")
        >>> {name: len(part) for name, part in digits.parts.items()}
        {'train': 1078, 'val': 269, 'test': 450}
    """
    settings = dict(locals())  # as they were given
    if not isinstance(data, Source) and is_shards(data):
        from striate.data.shards.load import load_shards  # which calls this again

        return load_shards(data, preprocess=preprocess, settings=settings)
    source = data if isinstance(data, Source) else find_source(data)
    return _load(source, _origin(data), settings)


def _load(source: Source, origin: str, settings: Mapping[str, Any]) -> ImageData:
    """Scan, decode, leave out, split: the steps of `load_data` in order."""
    skipped: list[Skipped] = []
    if (given := settings["given_split"]) is not None:
        skipped += _missing(source, given)
        source = _with_split(source, given)
    store = open_cache(settings["cache"], settings["cache_gb"])
    before = settings["given_hashes"] or {}
    census = take_census(source, store).compared(source, before)
    skipped += census.skipped
    _check_any(census.sound, skipped, source)
    preprocess = settings["preprocess"] or _chosen(census, settings)
    sizes = [preprocess]
    if settings["margin"] > 1:
        sizes.append(preprocess.enlarged(settings["margin"]))
    found = develop(source, census, sizes, store, settings["tick"])
    skipped += found.skipped
    _check_any(found.index, skipped, source)
    contents = united(source, census, found.index, found.contents, preprocess)
    found = replace(found, contents=tuple(contents))
    parts_given = [source.records[i].part for i in found.index]
    conflicts = two_labels(source, found.index, found.contents, parts_given)
    skipped += conflicts.values()
    kept = [k for k in range(len(found.index)) if k not in conflicts]
    _check_any(kept, skipped, source)
    shares = check_fractions(settings["val_fraction"], settings["test_fraction"])
    rows = _rows(source, census, found, kept, shares, settings["seed"])
    labels = check_classes(rows, source.labels)
    parts = {
        name: _part(found, kept, rows, labels, name, settings["workers"])
        for name in part_order({row.part for row in rows})
    }
    if not preprocess.mean:
        means, stds = statistics(parts["train"].pixels)
        preprocess = replace(preprocess, mean=means, std=stds)
    return ImageData(
        name=source.name,
        origin=origin,
        labels=labels,
        preprocess=preprocess,
        parts=parts,
        rows=tuple(rows),
        quarantined=(*source.quarantined, *skipped),
        ignored=source.ignored,
        warnings=(*source.warnings, *warnings_of(rows)),
    )


def _chosen(census: Census, settings: Mapping[str, Any]) -> Preprocess:
    keys = ("image_size", "in_chans", "resize", "background", "white", "jpeg")
    return choose_preprocess(
        census,
        normalise=(settings["normalise"], settings["mean"], settings["std"]),
        **{key: settings[key] for key in keys},
    )


def _origin(data: str | Path | Source) -> str:
    """Return where the data can be read again: a name or an absolute path, or ''."""
    if isinstance(data, Source):
        return ""
    if is_remote(str(data)):
        return str(data)
    found = str(data) not in NAMED and Path(data).exists()
    return str(Path(data).resolve()) if found else str(data)


def _check_any(
    usable: Sequence[int], skipped: Sequence[Skipped], source: Source
) -> None:
    if usable:
        return
    reasons = Counter(skip.reason for skip in skipped)
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    first = f"; the first: {skipped[0].path} ({skipped[0].detail})" if skipped else ""
    what = f"no usable pictures among {len(source.records)} files: {counts}{first}"
    raise DataError(what, where=source.root, fix="give PNG, JPEG or other pictures")


def _rows(
    source: Source,
    census: Census,
    found: Developed,
    kept: Sequence[int],
    fractions: Mapping[str, float],
    seed: int,
) -> list[SplitRow]:
    records = [source.records[found.index[k]] for k in kept]
    contents = [found.contents[k] for k in kept]
    hashes = [census.hashes[found.index[k]] for k in kept]
    rows = assign(records, contents, fractions, seed)
    return [replace(r, sha256=h) for r, h in zip(rows, hashes, strict=True)]


def _part(
    found: Developed,
    kept: Sequence[int],
    rows: Sequence[SplitRow],
    labels: Labels,
    name: str,
    workers: int,
) -> Part:
    number = {label: i for i, label in enumerate(labels.names)}
    members = [row for row in rows if row.part == name]
    sizes = [
        _pixels(found, kept, rows, name, size) for size in range(len(found.pixels))
    ]
    for pixels in sizes:
        if isinstance(pixels, LazyPixels):
            pixels.workers, pixels.forgiving = workers, name == "train"
    return Part.of(
        sizes[0],
        [number[row.label] for row in members],
        [row.path for row in members],
        sizes[1] if len(sizes) > 1 and name == "train" else None,
    )


def _pixels(
    found: Developed,
    kept: Sequence[int],
    rows: Sequence[SplitRow],
    name: str,
    size: int,
) -> Rows:
    chosen = [k for k, row in zip(kept, rows, strict=True) if row.part == name]
    return some(found.pixels[size], chosen)


def _missing(source: Source, given: Mapping[str, str]) -> list[Skipped]:
    """Return the files that an earlier split names and that are not there now."""
    there = {record.path for record in source.records}
    detail = "it was there when the split was made"
    return [
        Skipped(path=path, reason=MISSING, detail=detail)
        for path in given
        if path not in there
    ]


def _with_split(source: Source, given: Mapping[str, str]) -> Source:
    """Return the source with an earlier split; pictures not in it are ignored."""
    kept = [i for i, record in enumerate(source.records) if record.path in given]
    new = [record for record in source.records if record.path not in given]
    records = [
        replace(source.records[i], part=given[source.records[i].path]) for i in kept
    ]
    skips = [Skipped(path=record.path, reason="not-in-split") for record in new]
    return replace(
        source,
        records=tuple(records),
        arrays=None if source.arrays is None else source.arrays[kept],
        ignored=(*source.ignored, *skips),
    )


def load_labelled(
    data: str | Path | Source,
    preprocess: Preprocess,
    labels: Labels,
    part: str | None = None,
    *,
    cache: str = AUTO,
    cache_gb: float = DEFAULT_GB,
) -> tuple[Part, tuple[Skipped, ...]]:
    """Read labelled pictures for judging a trained network; classes match by name.

    Args:
        data: As for `load_data`.
        preprocess: The network's own.
        labels: The network's own.
        part: Only pictures of this given part; all where None.
        cache: As for `load_data`.
        cache_gb: Likewise.

    Returns:
        The pictures, and the files that could not be used.

    Raises:
        DataError: Nothing usable, or a class that the network does not know.
    """
    source = data if isinstance(data, Source) else find_source(data)
    wanted = [r for r in source.records if part is None or r.part == part]
    if not wanted:
        raise DataError(f"'{source.name}' has no {part} part", where=source.root)
    strange = sorted({r.label for r in wanted} - set(labels.names))
    if strange:
        what = f"classes that the network does not know: {', '.join(strange[:5])}"
        fix = f"it knows: {', '.join(labels.names[:20])}"
        raise DataError(what, where=source.root, fix=fix)
    source = _with_split(source, {r.path: part or "test" for r in wanted})
    census = take_census(source, store := open_cache(cache, cache_gb))
    found = develop(source, census, [preprocess], store)
    skipped = (*source.quarantined, *census.skipped, *found.skipped)
    _check_any(found.index, skipped, source)
    records = [source.records[i] for i in found.index]
    numbers = [labels.index(record.label) for record in records]
    paths = [record.path for record in records]
    return Part.of(found.pixels[0], numbers, paths), skipped
