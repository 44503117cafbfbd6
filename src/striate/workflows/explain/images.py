"""Images to explain, read from files or chosen from the predictions of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from striate.core.errors import DataError, SettingError
from striate.core.format import count_text
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.preprocess import display_pixels, file_to_input, normalize
from striate.data.subset import Subset
from striate.run.predict_images import expand_inputs
from striate.run.run import Run
from striate.workflows.explain.load_model import LoadedModel

MOST = 6  # images per page


@dataclass(frozen=True, kw_only=True)
class ExplainedImage:
    """One image to explain."""

    name: str
    pixels: np.ndarray = field(repr=False)
    x: Tensor = field(repr=False)
    truth: str | None = None


def read_images(
    loaded: LoadedModel, inputs: Sequence[str | Path]
) -> list[ExplainedImage]:
    """Read and preprocess image files.

    Raises:
        DataError: A file is not a readable image, or there are too many images.
    """
    paths = [path for item in inputs for path in expand_inputs(item)]
    if len(paths) > MOST:
        what = f"{count_text(len(paths), 'image')}; the maximum per page is {MOST}"
        fix = "use fewer images, or run striate explain several times"
        raise DataError(what, fix=fix)
    images = []
    for path in paths:
        try:
            pixels = file_to_input(read_file(path), loaded.preprocess)
        except UndecodableError as error:
            what = f"not a readable image: {error.reason} ({error.detail})"
            raise DataError(what, where=path, fix="remove this file") from error
        images.append(_explained(loaded, str(path), pixels))
    return images


def _explained(
    loaded: LoadedModel, name: str, pixels: Tensor, truth: str | None = None
) -> ExplainedImage:
    x = as_input(loaded.model, normalize(pixels[None], loaded.preprocess))
    visible = display_pixels(pixels, loaded.preprocess).numpy()
    return ExplainedImage(name=name, pixels=visible, x=x, truth=truth)


def as_input(model: nn.Module, x: Tensor) -> Tensor:
    """Move preprocessed images to the device and the precision of a network.

    Example:
        >>> import torch
        >>> as_input(nn.Linear(2, 2).double(), torch.zeros(1, 2)).dtype
        torch.float64
    """
    weight = next((p for p in model.parameters() if p.is_floating_point()), x)
    x = x.to(weight.device)
    return x.to(weight.dtype) if x.is_floating_point() else x


def subsample(subset: Subset, limit: int) -> Subset:
    """Return at most `limit` images of a subset, evenly spaced."""
    if len(subset) <= limit:
        return subset
    return subset.take([i * len(subset) // limit for i in range(limit)])


def run_images(loaded: LoadedModel) -> list[ExplainedImage]:
    """Return the images with the best correct and the worst wrong prediction of a run.

    Raises:
        SettingError: The network does not belong to a run.
    """
    if loaded.run is None:
        what = "no image to explain"
        raise SettingError(what, where=loaded.name, fix="add one or more image files")
    return _from_run(loaded.run, loaded)


def _from_run(run: Run, loaded: LoadedModel) -> list[ExplainedImage]:
    predictions = run.predictions(run.evaluated_split)
    subset = run.data.subsets[run.evaluated_split]
    correct = predictions.correct
    order = predictions.highest_losses(len(predictions.paths))
    lowest_loss = next((i for i in reversed(order) if correct[i]), None)
    highest_loss = next((i for i in order if not correct[i]), None)
    row_of = {path: i for i, path in enumerate(subset.paths)}
    return [
        _explained(
            loaded,
            predictions.paths[i],
            subset.pixels[row_of[predictions.paths[i]]],
            predictions.true_label(i),
        )
        for i in (lowest_loss, highest_loss)
        if i is not None
    ]
