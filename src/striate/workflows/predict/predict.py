"""Prediction of classes for new images, preprocessed exactly as in training."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from striate.core import device as devices
from striate.core.errors import DataError
from striate.core.files import write_csv, write_json
from striate.core.hooks import evaluation_mode
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.preprocess import file_to_input, normalize
from striate.data.sources.source import Skipped
from striate.engine.tta import TTA_MODES
from striate.run.run import Run, evaluation_batch_size


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction for one image: class, and probability of every class by name."""

    path: str
    label: str
    score: float
    probs: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as a JSON-serializable dict."""
        return {
            "path": self.path,
            "label": self.label,
            "score": self.score,
            "probabilities": self.probs,
        }


@dataclass(frozen=True, kw_only=True)
class PredictResult:
    """Predictions, and skipped files with the reason why each could not be read."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Skipped, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return predictions and skipped files as a JSON-serializable dict."""
        return {
            "predictions": [prediction.as_dict() for prediction in self.predictions],
            "skipped": [asdict(skip) for skip in self.skipped],
        }

    def save(self, path: Path) -> None:
        """Write predictions as JSON if the file name ends in `.json`, else as CSV."""
        if path.suffix.lower() == ".json":
            write_json(path, self.as_dict())
            return
        classes = list(self.predictions[0].probs)
        columns = ["path", "pred", *(f"p_{name}" for name in classes)]
        rows = ([p.path, p.label, *p.probs.values()] for p in self.predictions)
        write_csv(path, columns, rows)


def predict(run: Run, inputs: Sequence[str | Path]) -> PredictResult:
    """Predict the classes of images, given as files, folders or glob patterns.

    Args:
        run: A finished run.
        inputs: Paths or glob patterns; in a folder, every file is tried. For a run on
            data in memory also paths of its images, as in `split.csv`.

    Raises:
        DataError: An input matches no file, or no file is a usable image.
    """
    paths = [path for item in inputs for path in _input_paths(item, run)]
    device = devices.select_device(run.recipe.device)
    model, tta = run.model.to(device), TTA_MODES[run.recipe.tta]
    size = evaluation_batch_size(run.preprocess.height, run.preprocess.width)
    predictions: list[Prediction] = []
    skipped: list[Skipped] = []
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(paths), size):
            usable, batch = _read(paths[start : start + size], run, skipped)
            if not usable:
                continue
            x = normalize(batch.to(device), run.preprocess)
            probs = tta(model, x).float().softmax(1).cpu()
            best_classes = probs.argmax(1).tolist()
            rows = zip(usable, probs.tolist(), best_classes, strict=True)
            for path, row, best in rows:
                values = [round(prob, 7) for prob in row]
                by_name = dict(zip(run.labels.names, values, strict=True))
                prediction = Prediction(
                    path=str(path),
                    label=run.labels[best],
                    score=values[best],
                    probs=by_name,
                )
                predictions.append(prediction)
    if not predictions:
        first = skipped[0]
        what = f"none of {len(skipped)} files is a usable image; first error: "
        raise DataError(f"{what}{first.reason} ({first.detail})", where=first.path)
    return PredictResult(predictions=tuple(predictions), skipped=tuple(skipped))


def _input_paths(item: str | Path, run: Run) -> list[Path]:
    in_memory = run.image_in_memory(str(item)) is not None
    return [Path(item)] if in_memory else expand_inputs(item)


def expand_inputs(item: str | Path) -> list[Path]:
    """Return the files of a path, folder or glob pattern.

    Raises:
        DataError: No file matches.
    """
    path = Path(item)
    if path.is_dir():
        files = [
            p
            for p in sorted(path.rglob("*"))
            if p.is_file() and not any(n[0] == "." for n in p.relative_to(path).parts)
        ]
    elif path.exists():
        return [path]
    else:
        # glob, not Path.glob: the pattern may be absolute.
        matches = sorted(glob.glob(str(item), recursive=True))  # noqa: PTH207
        files = [p for p in map(Path, matches) if p.is_file()]
    if not files:
        fix = "give an image file, a folder, or a glob pattern in quotes"
        raise DataError("no such file", where=item, fix=fix)
    return files


def _read(
    paths: Sequence[Path], run: Run, skipped: list[Skipped]
) -> tuple[list[Path], Tensor]:
    usable, inputs = [], []
    for path in paths:
        try:
            inputs.append(read_input(path, run))
            usable.append(path)
        except UndecodableError as error:
            skipped.append(Skipped.of(str(path), error))
    return usable, torch.stack(inputs) if inputs else torch.empty(0)


def read_input(path: Path, run: Run) -> Tensor:
    """Read an image as stored pixels (H, W, C) at the input size of a run.

    Raises:
        UndecodableError: The file is not a usable image.
    """
    pixels = run.image_in_memory(str(path))
    if pixels is not None:
        return pixels
    return file_to_input(read_file(path), run.preprocess)
