"""Images of a run's validation split, for the comparison with an exported file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from striate.core.errors import DataError
from striate.core.preprocess_config import Preprocess
from striate.core.seeds import permutation
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.preprocess import decode_for, to_channels
from striate.data.find_source import find_source
from striate.data.sources.source import Source
from striate.data.split.split_file import read_split_rows
from striate.exporters.parity import ParitySample
from striate.exporters.portable_decode import decode_with_pillow
from striate.run import layout
from striate.run.lost_data import is_lost, lost_data_error
from striate.run.run import Run


def validation_samples(run: Run, count: int | None, split: str) -> list[ParitySample]:
    """Return images of a split at their full size, in a fixed random order.

    Images of a run on data in memory have the size of the network's input.

    Args:
        run: A finished run.
        count: Number of images; None for all.
        split: Name of the split.

    Raises:
        DataError: There is no image of this split.
        RunError: The data set is no longer where it was.
    """
    rows = read_split_rows(run.path / layout.SPLIT)
    paths = [row["image_path"] for row in rows if row["split"] == split]
    order = permutation(len(paths), "export", run.path.name)[:count]
    paths = [paths[i] for i in order]
    if not paths:
        what = f"the run has no {split} split, on which the file would be compared"
        raise DataError(what, where=run.path, fix="train with a validation split")
    if not run.origin:
        return _stored_samples(run, split, paths)
    if is_lost(run.origin):
        raise lost_data_error(run.origin, run.path)
    source = find_source(run.origin, run.labels.multi_label)
    index = {record.path: i for i, record in enumerate(source.records)}
    if not all(path in index for path in paths):  # images inside archives
        return _stored_samples(run, split, paths)
    samples = [_sample(source, index[path], run.preprocess) for path in paths]
    usable = [sample for sample in samples if sample is not None]
    if not usable:
        what = f"no image of the {split} split can be read"
        raise DataError(what, where=run.origin)
    return usable


def _stored_samples(run: Run, split: str, paths: Sequence[str]) -> list[ParitySample]:
    subset = run.data.subset(split)
    numbers = {path: i for i, path in enumerate(subset.paths)}
    return [
        ParitySample(path=path, pixels=subset.pixels[numbers[path]].numpy())
        for path in paths
        if path in numbers
    ]


def _sample(source: Source, index: int, preprocess: Preprocess) -> ParitySample | None:
    path = source.records[index].path
    if source.arrays is not None:
        pixels = source.arrays[index]
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        return ParitySample(path=path, pixels=_network_channels(pixels, preprocess))
    try:
        payload = source.payload(index)
        decoded = decode_for(payload, preprocess)
    except UndecodableError:
        return None
    pixels = _network_channels(decoded.pixels, preprocess)
    other = None
    if decoded.factor == 1:
        other = decode_with_pillow(payload, preprocess.channels)
    return ParitySample(path=path, pixels=pixels, other_pixels=other, file=payload)


def _network_channels(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    return np.ascontiguousarray(to_channels(pixels, preprocess))
