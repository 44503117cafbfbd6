"""A number became NaN or infinite: say where, write it down, offer the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from striate.core.errors import NonFiniteError
from striate.core.files import read_json, write_json
from striate.data.batches import Batches
from striate.data.progressive_resize import ProgressiveResize
from striate.engine.train_state import TrainState
from striate.run.recipe import Recipe

RECORD = "nonfinite.json"
SHOWN = 5  # images named in the message
MOST_SKIPPED = 10  # batches in a row: then it is not the images


class Blowups:
    """Names layer and images, writes them down, and answers as the recipe says.

    Args:
        folder: The run folder; `nonfinite.json` in it lists every case.
        recipe: `on_nonfinite` is the answer.
        train: The batches learned from.
        val: The batches judged by.
        tell: Told of a batch that is skipped.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        train: Batches | ProgressiveResize,
        val: Batches,
        tell: Callable[[str], None],
    ) -> None:
        self._path = folder / RECORD
        self._answer = recipe.on_nonfinite
        self._lr = recipe.rate
        self._train = train
        self._val = val
        self._tell = tell

    def __call__(self, error: NonFiniteError, at: TrainState) -> None:
        """Skip a training batch that blew up, if that is the answer.

        Raises:
            NonFiniteError: It is not, or too many were skipped in a row.
        """
        if self._answer != "skip":
            raise error
        if at.skipped >= MOST_SKIPPED:
            error.what = f"{error.what}; {at.skipped} batches in a row were skipped"
            raise error
        images = self.record(error, at)
        named = _named(images)
        self._tell(f"skipped {error.where}: {error.what}; {named}")

    def record(self, error: NonFiniteError, at: TrainState) -> list[str]:
        """Write a case down; return the images it is about."""
        images = self._images(error, at)
        case = {
            "epoch": at.epoch + 1,
            "step": at.step + 1,
            "split": error.split,
            "what": error.what,
            "layer": error.layer,
            "answer": self._answer,
            "images": images,
        }
        earlier = read_json(self._path) if self._path.is_file() else []
        # Going on from a checkpoint comes by the same case again.
        kept = [old for old in earlier if old["step"] < case["step"]]
        write_json(self._path, [*kept, case])
        return images

    def _images(self, error: NonFiniteError, at: TrainState) -> list[str]:
        if error.split == "val":
            return [self._val.subset.paths[row] for row in error.rows]
        if not error.layer:  # the weights themselves, not a batch
            return []
        numbers = next(iter(self._train.indices(at.epoch, at.batch))).tolist()
        chosen = [numbers[row] for row in error.rows] or numbers
        return [self._train.subset.paths[number] for number in chosen]

    def complete(self, error: NonFiniteError, at: TrainState) -> NonFiniteError:
        """Return the error with the images and the choice in its message."""
        images = self.record(error, at)
        if images:
            error.what = f"{error.what}\n  {_named(images)}"
        resume = f"striate train --resume {self._path.parent}"
        choice = (
            "the last good state is kept; go on from it with one of",
            f"{resume} --on-nonfinite skip",
            f"{resume} --on-nonfinite lower-lr",
            f"{resume} --lr {self._lr / 2:g}",
        )
        error.where = f"{error.where}; all of it in {self._path}"
        error.fix = "\n         ".join(choice)
        return error


def _named(images: Sequence[str]) -> str:
    listed = ", ".join(images[:SHOWN])
    rest = f" and {len(images) - SHOWN} more" if images[SHOWN:] else ""
    return f"images: {listed}{rest}"
