"""Hand-made run folders with known predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from striate.core.files import write_csv, write_json, write_text
from striate.run.recipe import Recipe
from striate.run.yaml_io import settings_yaml

CLASSES = ("across", "down")
SPLIT = ("image_path", "label", "split", "group", "content")


def made_run(
    path: Path,
    right: Sequence[bool],
    *,
    images: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    classes: Sequence[str] = CLASSES,
    split: str = "test",
    train: int = 20,
    sure: float = 0.9,
    accuracies: Sequence[float] = (0.5, 0.75),
    manifest: dict | None = None,
    **settings,
) -> Path:
    """Write a finished run whose k-th image is answered rightly where `right[k]`.

    Args:
        path: The folder.
        right: One an image of the part.
        images: Their numbers, which are their contents; 0, 1, … where not given.
        labels: Their classes; in turn where not given.
        classes: In the order of the outputs.
        split: The part they are of; `val` leaves the run without a test split.
        train: Training images.
        sure: Probability of each answer.
        accuracies: Of validation, by epoch.
        manifest: Changes to it.
        settings: Of the recipe.
    """
    numbers = list(range(len(right))) if images is None else list(images)
    truth = [classes[n % len(classes)] for n in numbers] if labels is None else labels
    judged = [
        (f"{number:04}.png", label, split, "", f"c{number}")
        for number, label in zip(numbers, truth, strict=True)
    ]
    rest = [(f"t{n:04}.png", "across", "train", "", f"t{n}") for n in range(train)]
    recipe = Recipe(data="stripes", model="tutorial_gray", **settings).resolved()
    write_csv(path / "split.csv", SPLIT, [*rest, *judged])
    write_text(path / "args.yaml", settings_yaml(recipe.as_dict()))
    write_json(path / "classes.json", list(classes))
    preprocess = {"channels": 1, "height": 8, "width": 8, "mean": [0], "std": [1]}
    write_json(path / "preprocess.json", preprocess)
    write_json(
        path / "manifest.json", {**_facts(path, len(accuracies)), **(manifest or {})}
    )
    _results(path, accuracies)
    _predictions(path, split, judged, right, classes, sure)
    write_text(path / "weights/best.safetensors", "not read")
    return path


def _facts(path: Path, epochs: int) -> dict:
    return {
        "name": path.name,
        "status": "done",
        "data": {"name": "stripes", "source": ""},
        "versions": {"striate": "0.1.0"},
        "machine": {"system": "made", "threads": 1},
        "git": None,
        "parameters": 1000,
        "seconds": 2.0,
        "images_per_second": 500.0,
        "epochs": epochs,
        "best_epoch": epochs,
    }


def _results(path: Path, accuracies: Sequence[float]) -> None:
    columns = ("epoch", "train_loss", "val_loss", "val_accuracy", "lr", "best")
    rows = [
        (i, 1 - a, 1 - a, a, 0.01, "true" if i == len(accuracies) else "false")
        for i, a in enumerate(accuracies, 1)
    ]
    write_csv(path / "results.csv", columns, rows)


def _predictions(path, split, judged, right, classes, sure) -> None:
    columns = ["image_path", "true", "pred", *(f"p_{c}" for c in classes), "loss"]
    rows = []
    for (where, label, *_), good in zip(judged, right, strict=True):
        true = classes.index(label)
        said = true if good else (true + 1) % len(classes)
        probs = np.full(len(classes), (1 - sure) / (len(classes) - 1))
        probs[said] = sure
        rows.append([where, label, classes[said], *probs, -np.log(probs[true])])
    write_csv(path / f"predictions_{split}.csv", columns, rows)


def stop(path: Path, reason: str) -> Path:
    """Turn a run into one that stopped before it was judged."""
    manifest = json.loads((path / "manifest.json").read_text())
    write_json(
        path / "manifest.json", {**manifest, "status": "stopped", "reason": reason}
    )
    for answers in path.glob("predictions_*.csv"):
        answers.unlink()
    return path
