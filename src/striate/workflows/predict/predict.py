"""New images through a trained network, treated exactly as in training."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from striate.run.run import Run, judged_at_once


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An answer for one image, with the probability of every class by name."""

    path: str
    label: str
    score: float
    probs: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "path": self.path,
            "label": self.label,
            "score": self.score,
            "probabilities": self.probs,
        }


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Predictions, and the files that could not be asked about, with the reason."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Skipped, ...]


def predict(run: Run, inputs: Sequence[str | Path]) -> Answers:
    """Predict files, folders (at any depth) and globs.

    Args:
        run: A finished run.
        inputs: Paths or patterns; every file below a folder is tried.

    Raises:
        DataError: An input matches nothing, or none is a usable image.
    """
    paths = [path for item in inputs for path in expand(item)]
    device = devices.select_device(run.recipe.device)
    model, view = run.model.to(device), TTA_MODES[run.recipe.tta]
    size = judged_at_once(run.preprocess.height, run.preprocess.width)
    predictions: list[Prediction] = []
    skipped: list[Skipped] = []
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(paths), size):
            kept, batch = _read(paths[start : start + size], run, skipped)
            if not kept:
                continue
            x = normalize(batch.to(device), run.preprocess)
            probs = view(model, x).float().softmax(1).cpu()
            predictions += [
                _answer(p, o, run) for p, o in zip(kept, probs, strict=True)
            ]
    if not predictions:
        first = skipped[0]
        what = f"none of {len(skipped)} files is a usable image; the first: "
        raise DataError(f"{what}{first.reason} ({first.detail})", where=first.path)
    return Answers(predictions=tuple(predictions), skipped=tuple(skipped))


def expand(item: str | Path) -> list[Path]:
    """Return the files that a path, folder or pattern means.

    Raises:
        DataError: It matches nothing.
    """
    path = Path(item)
    if path.is_dir():
        found = [p for p in sorted(path.rglob("*")) if _is_visible_file(p, path)]
    elif path.exists():
        return [path]
    else:
        # glob, not Path.glob: the pattern may be absolute.
        matches = sorted(glob.glob(str(item), recursive=True))  # noqa: PTH207
        found = [p for p in map(Path, matches) if p.is_file()]
    if not found:
        fix = "give an image, a folder of images, or a pattern in quotes"
        raise DataError("no file is there", where=item, fix=fix)
    return found


def _is_visible_file(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    return path.is_file() and not any(part.startswith(".") for part in parts)


def _read(
    paths: Sequence[Path], run: Run, skipped: list[Skipped]
) -> tuple[list[Path], Tensor]:
    kept, inputs = [], []
    for path in paths:
        try:
            inputs.append(read_input(path, run))
            kept.append(path)
        except UndecodableError as error:
            skip = Skipped(path=str(path), reason=error.reason, detail=error.detail)
            skipped.append(skip)
    return kept, torch.stack(inputs) if inputs else torch.empty(0)


def read_input(path: Path, run: Run) -> Tensor:
    """Return one file as the 8-bit input of a run's network, (H, W, C).

    Raises:
        UndecodableError: The file is no usable image.
    """
    return file_to_input(read_file(path), run.preprocess)


def _answer(path: Path, probs: Tensor, run: Run) -> Prediction:
    best = int(probs.argmax())
    values = [round(p, 7) for p in probs.tolist()]
    by_name = dict(zip(run.labels.names, values, strict=True))
    label = run.labels[best]
    return Prediction(path=str(path), label=label, score=values[best], probs=by_name)


def save_answers(answers: Answers, path: Path) -> None:
    """Write predictions as CSV, or as JSON where the name ends so."""
    if path.suffix.lower() == ".json":
        write_json(path, answers_dict(answers))
        return
    names = list(answers.predictions[0].probs)
    columns = ["path", "pred", *(f"p_{name}" for name in names)]
    write_csv(path, columns, _rows(answers))


def _rows(answers: Answers) -> Iterator[list[Any]]:
    for one in answers.predictions:
        yield [one.path, one.label, *one.probs.values()]


def answers_dict(answers: Answers) -> dict[str, Any]:
    """Return predictions and skipped files as JSON values."""
    return {
        "predictions": [one.as_dict() for one in answers.predictions],
        "skipped": [
            {"path": s.path, "reason": s.reason, "detail": s.detail}
            for s in answers.skipped
        ],
    }
