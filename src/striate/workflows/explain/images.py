"""The images of an explanation, and what is asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from striate.core.errors import DataError, SettingError
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.preprocess import file_to_input, normalize
from striate.data.subset import Subset
from striate.run.run import Run
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.predict.predict import expand

MOST = 6  # images on a page


@dataclass(frozen=True, kw_only=True)
class ExplainedImage:
    """One image as people and as the network see it.

    Args:
        name: Its file.
        pixels: (H, W, C), uint8, at the network's size.
        x: (1, C, H, W).
        truth: Its class, where it is known.
    """

    name: str
    pixels: np.ndarray = field(repr=False)
    x: Tensor = field(repr=False)
    truth: str | None = None


def read_images(
    subject: LoadedModel, inputs: Sequence[str | Path]
) -> list[ExplainedImage]:
    """Read image files as the network takes them.

    Raises:
        DataError: A file is no usable image, or there are more than a page holds.
    """
    paths = [path for item in inputs for path in expand(item)]
    if len(paths) > MOST:
        what = f"{len(paths)} images; a page explains at most {MOST}"
        raise DataError(what, fix="name fewer, or make several pages")
    found = []
    for path in paths:
        try:
            pixels = file_to_input(read_file(path), subject.preprocess)
        except UndecodableError as error:
            what = f"no usable image: {error.reason} ({error.detail})"
            raise DataError(what, where=path, fix="leave it out") from error
        found.append(_shown(subject, str(path), pixels))
    return found


def _shown(
    subject: LoadedModel, name: str, pixels: Tensor, truth: str | None = None
) -> ExplainedImage:
    x = normalize(pixels[None], subject.preprocess)
    return ExplainedImage(name=name, pixels=pixels.numpy(), x=x, truth=truth)


def subsample(part: Subset, most: int) -> Subset:
    """Return a part, or as many of its images, spread evenly, as are wanted."""
    if len(part) <= most:
        return part
    return part.take([i * len(part) // most for i in range(most)])


def run_images(subject: LoadedModel) -> list[ExplainedImage]:
    """Return a run's surest right answer and its costliest wrong one.

    Raises:
        SettingError: The network is of no run.
    """
    if subject.run is None:
        what = "no image to explain"
        raise SettingError(what, where=subject.name, fix="name one or more files")
    return _from_run(subject.run, subject)


def _from_run(run: Run, subject: LoadedModel) -> list[ExplainedImage]:
    predictions = run.predictions(run.judged_part)
    part = run.data.parts[run.judged_part]
    right = predictions.truth == predictions.predicted
    order = predictions.most_wrong(len(predictions.paths))
    surest = next((i for i in reversed(order) if right[i]), None)
    worst = next((i for i in order if not right[i]), None)
    place = {path: i for i, path in enumerate(part.paths)}
    return [
        _shown(
            subject,
            predictions.paths[i],
            part.pixels[place[predictions.paths[i]]],
            run.labels[int(predictions.truth[i])],
        )
        for i in (surest, worst)
        if i is not None
    ]
