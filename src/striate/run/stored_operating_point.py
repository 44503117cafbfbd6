"""Operating points stored in a run folder: decision threshold and review band."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.core.class_names import ClassNames
from striate.core.errors import RunError
from striate.core.files import damaged_file_errors, hash_file, read_json, write_json
from striate.core.registry import unknown_name_error
from striate.run import layout as names

_SAME = 1e-6  # relative tolerance: larger batches change probabilities by less


@dataclass(frozen=True, kw_only=True)
class StoredOperatingPoint:
    """Decision threshold and review band of one class, for the weights of one run."""

    target: str  # the positive class
    weights: str  # SHA-256 hash of the weights file
    temperature: float  # temperature of the probabilities
    threshold: float  # probability from which on the class is predicted
    # probabilities between these limits need review; None: all images need review
    review_band: tuple[float, float] | None

    def __post_init__(self) -> None:
        values = (self.threshold, *(self.review_band or ()))
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"probabilities must be between 0 and 1, got {values}")

    def is_positive(self, prob: float) -> bool:
        """Return whether an image with this probability is predicted as the class."""
        return prob >= self.threshold * (1 - _SAME)

    def needs_review(self, prob: float) -> bool:
        """Return whether an image with this probability of the class needs review."""
        if self.review_band is None:
            return True
        low, high = self.review_band
        return low + _SAME < prob < high - _SAME

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the stored file."""
        band = self.review_band
        return {
            "class": self.target,
            "weights": self.weights,
            "temperature": self.temperature,
            "threshold": self.threshold,
            "review_band": {"from": band[0], "to": band[1]} if band else None,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StoredOperatingPoint:
        """Read the stored file, or the `operating_point.json` of a report."""
        band = values["review_band"]
        return cls(
            target=str(values["class"]),
            weights=str(values["weights"]),
            temperature=float(values["temperature"]),
            threshold=float(values["threshold"]),
            review_band=(float(band["from"]), float(band["to"])) if band else None,
        )


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 hash of the best weights of a run.

    Raises:
        RunError: The weights are missing.
    """
    path = folder / names.BEST
    if not path.is_file():
        fix = "restore the file from a backup, or train again"
        raise RunError("the weights of the run are missing", where=path, fix=fix)
    return hash_file(path)


def store_operating_point(
    folder: Path, classes: ClassNames, point: StoredOperatingPoint
) -> Path:
    """Write an operating point into the run folder, for `striate predict`."""
    path = _path(folder, classes, point.target)
    write_json(path, point.as_dict())
    return path


def _path(folder: Path, classes: ClassNames, target: str) -> Path:
    # The number keeps apart classes with the same safe name.
    file = f"{classes.index(target)}-{names.safe_name(target)[:40]}.json"
    return folder / names.OPERATING_POINTS / file


def load_operating_point(
    folder: Path, classes: ClassNames, temperature: float, class_or_file: str | Path
) -> StoredOperatingPoint:
    """Load the operating point of a class, stored in the run folder, or of a file.

    Args:
        folder: The folder of the run.
        classes: The classes of the run.
        temperature: The temperature of the run.
        class_or_file: A class of the run; or a file `operating_point.json`, or its
            folder, written by `striate evaluate --operating-point`.

    Raises:
        UnknownNameError: It is neither a class of the run nor a file.
        RunError: There is no operating point for this class, the file is damaged, or
            it belongs to other weights.
    """
    name = str(class_or_file)
    if name in classes.names:
        path = _path(folder, classes, name)
        if not path.is_file():
            what = f"the run has no operating point for class '{name}'"
            raise RunError(what, where=folder, fix=f"run: {_command(folder, name)}")
    else:
        path = Path(class_or_file)
        path = path / names.OPERATING_POINT if path.is_dir() else path
        if not path.is_file():
            raise _unknown_class(folder, classes, name)
    values = read_json(path)
    with damaged_file_errors(path):
        if "weights" not in values:
            what = "the file contains no operating point that `striate predict` can use"
            fix = f"run: {_command(folder)}"
            raise RunError(what, where=path, fix=fix)
        point = StoredOperatingPoint.from_dict(values)
    if point.target not in classes.names:
        what = f"the operating point is for class '{point.target}', and the run has "
        fix = f"run: {_command(folder)}"
        raise RunError(f"{what}no such class", where=path, fix=fix)
    if change := _difference(point, weights_hash(folder), temperature):
        what = f"the operating point was chosen for {change}"
        raise RunError(what, where=path, fix=f"run: {_command(folder, point.target)}")
    return point


def _unknown_class(folder: Path, classes: ClassNames, name: str) -> Exception:
    error = unknown_name_error("class", name, classes.names, "--operating-point")
    error.fix = f"{error.fix}; or give a file operating_point.json, which this command "
    error.fix += f"writes: {_command(folder)}"
    return error


def _difference(point: StoredOperatingPoint, weights: str, temperature: float) -> str:
    """Return why an operating point does not fit the probabilities of a run."""
    if point.weights != weights:
        own = f"those of the run ({weights[:12]})"
        return f"other weights ({point.weights[:12]}) than {own}"
    if not math.isclose(point.temperature, temperature, rel_tol=_SAME):
        own = f"the temperature of the run is {temperature:.4g}"
        return f"temperature {point.temperature:.4g}, and {own}"
    return ""


def _command(folder: Path, target: str = "CLASS") -> str:
    """Return the command that chooses and stores an operating point."""
    path = shlex.quote(str(folder))
    return f"striate evaluate {path} --operating-point {shlex.quote(target)}"
