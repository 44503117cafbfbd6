"""The images of an explanation, and what is asked about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from striate.core.errors import DataError, SettingError
from striate.core.registry import unknown
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.preprocess import file_to_input, normalize
from striate.data.subset import Subset
from striate.interpret.attribution.target import Class
from striate.interpret.layer_choice import AUTO
from striate.run.run import Run
from striate.workflows.explain.subject import Subject
from striate.workflows.predict.predict import expand

METHODS = (AUTO, "occlusion", "integrated")
MOST = 6  # images on a page
ALSO = ("set", "invariance", "depth", "bend")

Told = Callable[[str], None]
Unit = tuple[str, tuple[int, ...]]  # a layer's call, and (channel, row, column)


def nobody(line: str) -> None:
    """Tell nobody what takes long."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked about every image.

    Args:
        target: A class by name or number; the network's answer where None.
        against: A class it is held against; where None the label if the answer is
            wrong, else the runner-up.
        methods: Of `look.evidence`.
        layer: Whose maps class evidence is made of.
        unit: A unit to draw the field, the sum and the channel of: a layer's name and
            its place; the strongest of the evidence's layer where None.
        seed: Of the trust marks.
        also: Parts that take longer, of a run: `set` (evidence over the whole set),
            `invariance` (images moved, pools exchanged), `depth` (gradients by
            layer, chains trained to compare), `bend` (why depth needs one).
        told: Gets a line now and then from what takes long.

    Raises:
        UnknownNameError: A part of the page has no such name.
    """

    target: Class | None = None
    against: Class | None = None
    methods: tuple[str, ...] = METHODS
    layer: str = AUTO
    unit: Unit | None = None
    seed: int = 0
    also: tuple[str, ...] = ()
    told: Told = field(default=nobody, repr=False)

    def __post_init__(self) -> None:
        for name in self.also:
            if name not in ALSO:
                raise unknown("part of the page", name, ALSO)


@dataclass(frozen=True, kw_only=True)
class Shown:
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


def read(subject: Subject, inputs: Sequence[str | Path]) -> list[Shown]:
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
    subject: Subject, name: str, pixels: Tensor, truth: str | None = None
) -> Shown:
    x = normalize(pixels[None], subject.preprocess)
    return Shown(name=name, pixels=pixels.numpy(), x=x, truth=truth)


def some(subset: Subset, most: int) -> Subset:
    """Return a part, or as many of its images, spread evenly, as are wanted."""
    if len(subset) <= most:
        return subset
    return subset.take([i * len(subset) // most for i in range(most)])


def own_images(subject: Subject) -> list[Shown]:
    """Return a run's surest right answer and its costliest wrong one.

    Raises:
        SettingError: The network is of no run.
    """
    if subject.run is None:
        what = "no image to explain"
        raise SettingError(what, where=subject.name, fix="name one or more files")
    return _from_run(subject.run, subject)


def _from_run(run: Run, subject: Subject) -> list[Shown]:
    predictions = run.predictions(run.evaluated_split)
    subset = run.data.subsets[run.evaluated_split]
    right = predictions.truth == predictions.predicted
    order = predictions.most_wrong(len(predictions.paths))
    surest = next((i for i in reversed(order) if right[i]), None)
    worst = next((i for i in order if not right[i]), None)
    place = {path: i for i, path in enumerate(subset.paths)}
    return [
        _shown(
            subject,
            predictions.paths[i],
            subset.pixels[place[predictions.paths[i]]],
            run.labels[int(predictions.truth[i])],
        )
        for i in (surest, worst)
        if i is not None
    ]
