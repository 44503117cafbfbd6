"""From what the user typed to parts ready for training, every file accounted for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from striate.core.errors import DataError, SettingError
from striate.core.spec import Labels, Preprocess
from striate.data.assign import assign
from striate.data.coverage import (
    check_classes,
    check_counts,
    part_order,
    warnings_of,
)
from striate.data.decode import Header
from striate.data.fraction import spared
from striate.data.part import Part
from striate.data.preprocess import statistics
from striate.data.scan import (
    Scanned,
    Tick,
    common_channels,
    common_shape,
    read_headers,
    read_pixels,
    two_labels,
)
from striate.data.sources.find import find_source
from striate.data.sources.named import NAMED
from striate.data.sources.source import Skipped, Source
from striate.data.split import Deal
from striate.data.split_file import SPARE, Earlier, SplitRow, read_earlier

# Where pictures differ in size and the user names none: small enough for the bundled
# networks to train on a CPU, large enough to recognise things.
DEFAULT_SIDE = 64
LARGEST_NATIVE_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Pictures in parts, with everything needed to treat new ones alike.

    `seen` files are used, spare (training pictures beyond the fraction), quarantined
    (should have worked and did not) or ignored (by rule no pictures of the set); the
    four always add up. `origin` is where they can be read again: a name or an absolute
    path, empty for pictures from memory. `deal` says how they were split.
    """

    name: str
    origin: str
    labels: Labels
    preprocess: Preprocess
    parts: Mapping[str, Part] = field(repr=False)
    rows: tuple[SplitRow, ...] = field(repr=False)
    quarantined: tuple[Skipped, ...] = field(default=(), repr=False)
    ignored: tuple[Skipped, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    deal: Deal = field(default_factory=Deal, repr=False)
    earlier: str = ""

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

    @property
    def spare(self) -> int:
        """Return how many training pictures lie beyond the fraction."""
        return sum(row.part == SPARE for row in self.rows)

    def cut(self, fraction: float) -> ImageData:
        """Return the data as it would have been loaded at a smaller fraction.

        Raises:
            SettingError: The fraction is none, or more than there is.
        """
        if not 0 < fraction <= self.deal.fraction:
            have = f"have {self.deal.fraction:g} of the training part"
            raise SettingError(f"fraction {fraction:g} cannot be cut: {have}")
        deal = replace(self.deal, fraction=fraction)
        rows = spared(self.rows, deal)
        had = [i for i, row in enumerate(self.rows) if row.part == "train"]
        stays = [n for n, i in enumerate(had) if rows[i].part == "train"]
        train = self.part("train").take(stays)
        mean, std = statistics(train.pixels)
        return replace(
            self,
            preprocess=replace(self.preprocess, mean=mean, std=std),
            parts={**self.parts, "train": train},
            rows=tuple(rows),
            deal=deal,
        )

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
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    fraction: float = 1.0,
    folds: int | None = None,
    fold: int | None = None,
    split: str | Path | None = None,
    exact: bool = False,
    seed: int = 0,
    preprocess: Preprocess | None = None,
    given_split: Mapping[str, str] | None = None,
    tick: Tick | None = None,
) -> ImageData:
    """Read pictures into memory, check them, and split them where they are not.

    Args:
        data: A named set, a folder, a CSV, IDX files, or a source of arrays.
        image_size: Input side or (height, width) in pixels; the pictures' own size
            where they all share one, else 64.
        in_chans: 1 or 3; grey where every picture is grey.
        resize: `squash`, `crop` or `pad`, see `Preprocess`.
        val_fraction: Share for validation of all pictures that have no part.
        test_fraction: Share for the test, where no test part is given.
        fraction: Train on this share of the training part, alike in every class.
        folds: Deal so many folds for cross-validation.
        fold: The one to judge, counted from 0: it is the test part, or validation
            where a test is given.
        split: A run folder, or a CSV of paths and parts, whose pictures stay where
            they are; only new ones are dealt.
        exact: Hold each class's shares to the picture; then adding pictures can move
            old ones.
        seed: Deals the split.
        preprocess: Use this, whole, in place of the input's settings above.
        given_split: Parts by path; other pictures are not used.
        tick: Called with (done, all) while decoding.

    Raises:
        DataError: The data does not admit training; says why and what to do.
        SettingError: The shares or folds cannot be.

    Example:
        >>> digits = load_data("digits", exact=True)
        >>> {name: len(part) for name, part in digits.parts.items()}
        {'train': 1078, 'val': 269, 'test': 450}
    """
    deal = Deal(
        val=val_fraction,
        test=test_fraction,
        fraction=fraction,
        folds=folds,
        fold=fold,
        exact=exact,
        seed=seed,
    )
    earlier = _earlier(split, deal)
    source = data if isinstance(data, Source) else find_source(data)
    if given_split is not None:
        source = _with_split(source, given_split)
    headers = read_headers(source)
    sound = [i for i, header in enumerate(headers) if isinstance(header, Header)]
    skipped = [header for header in headers if isinstance(header, Skipped)]
    _check_any(sound, skipped, source)
    if preprocess is None:
        found = [header for header in headers if isinstance(header, Header)]
        preprocess = _choose(found, image_size, in_chans, resize)
    scanned = read_pixels(source, sound, preprocess, tick)
    skipped += scanned.skipped
    _check_any(scanned.index, skipped, source)
    given = [source.records[i].part for i in scanned.index]
    conflicts = two_labels(source, scanned, given)
    skipped += conflicts.values()
    kept = [k for k in range(len(scanned.index)) if k not in conflicts]
    _check_any(kept, skipped, source)
    split_up = _split_up(source, scanned, kept, skipped, preprocess, deal, earlier)
    return replace(split_up, origin=_origin(data))


def _split_up(
    source: Source,
    scanned: Scanned,
    kept: Sequence[int],
    skipped: Sequence[Skipped],
    preprocess: Preprocess,
    deal: Deal,
    earlier: Earlier | None,
) -> ImageData:
    """Give the pictures at `kept` in `scanned` their parts, and say what came of it."""
    records = [source.records[scanned.index[k]] for k in kept]
    contents = [scanned.contents[k] for k in kept]
    check_counts(record.label for record in records)
    assigned = assign(records, contents, deal, earlier)
    left_out = assigned.left_out
    labels = check_classes(assigned.rows, source.labels, assigned.dealt)
    kept = [kept[i] for i in assigned.stays]
    rows = spared(assigned.rows, deal)
    parts = _parts(scanned.pixels, kept, rows, labels)
    if not preprocess.mean:
        mean, std = statistics(parts["train"].pixels)
        preprocess = replace(preprocess, mean=mean, std=std)
    return ImageData(
        name=source.name,
        origin="",
        labels=labels,
        preprocess=preprocess,
        parts=parts,
        rows=tuple(rows),
        quarantined=(*source.quarantined, *skipped),
        ignored=(*source.ignored, *left_out),
        warnings=(*source.warnings, *warnings_of(rows, left_out)),
        notes=assigned.notes,
        deal=deal,
        earlier=str(earlier.origin.resolve()) if earlier else "",
    )


def _earlier(split: str | Path | None, deal: Deal) -> Earlier | None:
    if split is None:
        return None
    if deal.folds:
        fix = "leave out --folds and --fold, or --split"
        what = "an earlier split has its parts; it cannot be dealt into folds"
        raise SettingError(what, where="--split", fix=fix)
    return read_earlier(split)


def _origin(data: str | Path | Source) -> str:
    """Return where the data can be read again: a name or an absolute path, or ''."""
    if isinstance(data, Source):
        return ""
    found = str(data) not in NAMED and Path(data).exists()
    return str(Path(data).resolve()) if found else str(data)


def _choose(
    headers: Sequence[Header],
    image_size: int | tuple[int, int] | None,
    in_chans: int | None,
    resize: str,
) -> Preprocess:
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    own = common_shape(headers)
    if own is not None and max(own) > LARGEST_NATIVE_SIDE:
        own = None
    height, width = image_size or own or (DEFAULT_SIDE, DEFAULT_SIDE)
    channels = in_chans or common_channels(headers)
    return Preprocess(channels=channels, height=height, width=width, resize=resize)


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


def _parts(
    pixels: Tensor, kept: Sequence[int], rows: Sequence[SplitRow], labels: Labels
) -> dict[str, Part]:
    number = {name: i for i, name in enumerate(labels.names)}
    members: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        members[row.part].append(position)
    return {
        part: Part.of(
            pixels[[kept[i] for i in members[part]]],
            [number[rows[i].label] for i in members[part]],
            [rows[i].path for i in members[part]],
        )
        for part in part_order(set(members))
    }


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
) -> tuple[Part, tuple[Skipped, ...]]:
    """Read labelled pictures for judging a trained network; classes match by name.

    Args:
        data: As for `load_data`.
        preprocess: The network's own.
        labels: The network's own.
        part: Only pictures of this given part; all where None.

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
    headers = read_headers(source)
    sound = [i for i, header in enumerate(headers) if isinstance(header, Header)]
    skipped = [header for header in headers if isinstance(header, Skipped)]
    scanned = read_pixels(source, sound, preprocess)
    skipped += scanned.skipped
    _check_any(scanned.index, skipped, source)
    records = [source.records[i] for i in scanned.index]
    numbers = [labels.index(record.label) for record in records]
    paths = [record.path for record in records]
    return Part.of(scanned.pixels, numbers, paths), (*source.quarantined, *skipped)
