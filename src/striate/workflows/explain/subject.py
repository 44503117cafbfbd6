"""What `explain` is about: a network with weights, and how it takes images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from striate.core.class_names import ClassNames
from striate.core.errors import SettingError
from striate.core.preprocess import Preprocess
from striate.models.weights import load_pretrained
from striate.run.run import Run
from striate.run.target import SummaryRequest, is_run, resolve

# Of the public networks' training set; the usual guess for three channels.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network ready to look at images.

    Args:
        name: What to call it.
        model: With its weights.
        preprocess: What is done to an image file.
        labels: Class names; None where it has none.
        run: The run it comes from, if any.
        remarks: What was assumed.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    labels: ClassNames | None = None
    run: Run | None = None
    remarks: tuple[str, ...] = ()


def subject(
    target: str, wanted: SummaryRequest | None = None, weights: Path | None = None
) -> Subject:
    """Return the network that a word means, with weights.

    Args:
        target: A run folder or its name, a name of `striate models`, `file.py:Class`,
            or a sketch.
        wanted: Image and classes asked for, where it is no run.
        weights: A file of weights for a named network.

    Raises:
        SettingError: It is none of these, or a run was given other weights.
    """
    wanted = wanted or SummaryRequest()
    if is_run(target):
        if weights is not None or wanted != SummaryRequest():
            what = "a run has its weights, image size, channels and classes already"
            raise SettingError(what, where=target, fix="leave those flags out")
        run = Run(target)
        return Subject(
            name=run.path.name,
            model=run.model,
            preprocess=run.preprocess,
            labels=run.labels,
            run=run,
        )
    found = resolve(target, wanted, real=True)
    remarks = []
    if weights is not None:
        load_pretrained(found.model, weights)
    else:
        remarks.append(
            "No weights were given: unless the network made its own, these are the "
            "random ones it began with, and its evidence means nothing."
        )
    channels, height, width = found.shape
    mean = _MEAN if channels == 3 else (0.5,) * channels
    std = _STD if channels == 3 else (0.25,) * channels
    remarks.append(
        f"Images are brought to {height}×{width} and scaled with mean {_list(mean)} "
        f"and deviation {_list(std)}; a run knows its own."
    )
    preprocess = Preprocess(
        channels=channels, height=height, width=width, mean=mean, std=std
    )
    return Subject(
        name=found.name,
        model=found.model.eval(),
        preprocess=preprocess,
        remarks=tuple(remarks),
    )


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in dict.fromkeys(values))
