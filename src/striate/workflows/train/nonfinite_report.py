"""Report on NaN or infinite values: the layer, the images, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote

from striate.core.errors import NonFiniteError
from striate.core.files import read_json, write_json
from striate.core.format import count_text
from striate.data.batches import Batches
from striate.data.progressive_resize import ProgressiveResize
from striate.engine.train_state import TrainState
from striate.run.recipe import TrainConfig

NONFINITE_FILE = "nonfinite.json"
MAX_NAMED = 5  # images named in the message
MAX_SKIPPED = 10  # batches in a row; with more, the images are not the cause


class NonFiniteReport:
    """Callback that reports NaN or infinite values, and acts as set in `on_nonfinite`.

    `tell` is called with a message for each skipped batch.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        train: Batches | ProgressiveResize,
        val: Batches,
        tell: Callable[[str], None],
    ) -> None:
        self._path = folder / NONFINITE_FILE
        self._action = config.on_nonfinite
        self._lr = config.max_lr
        self._train = train
        self._val = val
        self._tell = tell

    def __call__(self, error: NonFiniteError, state: TrainState) -> None:
        """Skip the training batch if `on_nonfinite` is `skip`, else raise the error."""
        if self._action != "skip":
            raise error
        if state.skipped >= MAX_SKIPPED:
            what = (
                f"{error.what}; "
                f"{count_text(state.skipped, 'batch', 'batches')} in a row were skipped"
            )
            error.what = what
            raise error
        images = self.record(error, state)
        self._tell(f"skipped {error.where}: {error.what}; {_image_list(images)}")

    def record(self, error: NonFiniteError, state: TrainState) -> list[str]:
        """Add an error to `nonfinite.json`; return the paths of the affected images."""
        images = self._images(error, state)
        case = {
            "epoch": state.epoch + 1,
            "step": state.step + 1,
            "split": error.split,
            "what": error.what,
            "layer": error.layer,
            "action": self._action,
            "images": images,
        }
        earlier = read_json(self._path) if self._path.is_file() else []
        # A resumed run meets the same case again.
        earlier = [old for old in earlier if old["step"] < case["step"]]
        write_json(self._path, [*earlier, case])
        return images

    def _images(self, error: NonFiniteError, state: TrainState) -> list[str]:
        if error.split == "val":
            return [self._val.subset.paths[row] for row in error.rows]
        if not error.layer:  # the weights themselves, not a batch
            return []
        batch = next(iter(self._train.indices(state.epoch, state.batch))).tolist()
        rows = [batch[row] for row in error.rows] or batch
        return [self._train.subset.paths[row] for row in rows]

    def complete(self, error: NonFiniteError, state: TrainState) -> NonFiniteError:
        """Return the error with image paths, and with commands to resume the run."""
        images = self.record(error, state)
        if images:
            error.what = f"{error.what}\n  {_image_list(images)}"
        resume = f"striate train --resume {quote(str(self._path.parent))}"
        commands = (
            "the last valid state is saved; resume with one of these commands",
            f"{resume} --on-nonfinite skip",
            f"{resume} --on-nonfinite lower-lr",
            f"{resume} --lr {self._lr / 2:g}",
        )
        error.where = f"{error.where}; details in {self._path}"
        error.fix = "\n         ".join(commands)
        return error


def _image_list(images: Sequence[str]) -> str:
    first = ", ".join(images[:MAX_NAMED])
    rest = f" and {len(images) - MAX_NAMED} more" if images[MAX_NAMED:] else ""
    return f"images: {first}{rest}"
