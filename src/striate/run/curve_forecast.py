"""Forecast of the accuracy with more images, from an earlier learning curve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from striate.core.errors import RunError
from striate.core.files import damaged_file_errors, read_json
from striate.metrics.intervals import Interval
from striate.run.run import Run

CURVE_FILE = "curve.json"
METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}


@dataclass(frozen=True, kw_only=True)
class CurveForecast:
    """Expected accuracy with a larger number of training images."""

    path: Path  # folder of the learning curve
    metric: str  # `accuracy` or `balanced accuracy`
    images: int
    expected: float
    interval: Interval  # 95 % interval of `expected`


def find_forecast(run: Run) -> CurveForecast | None:
    """Return the first forecast of the newest learning curve on the data of a run."""
    origin = run.origin
    files = _curve_files(run.path) if origin else ()
    for path in sorted(files, key=lambda p: p.stat().st_mtime, reverse=True):
        with suppress(RunError):  # a damaged curve is no reason to fail
            if (forecast := _read_forecast(path, origin)) is not None:
                return forecast
    return None


def _curve_files(run_folder: Path) -> Iterator[Path]:
    """Yield the curve files of the current folder and of the folder of the runs."""
    roots = {Path("runs/curve").resolve(), run_folder.resolve().parents[1] / "curve"}
    for root in sorted(roots):
        with suppress(OSError):  # a folder without permission
            yield from root.glob(f"*/{CURVE_FILE}")


def _read_forecast(path: Path, origin: str) -> CurveForecast | None:
    """Return the first forecast in a file, if its curve uses the data at `origin`."""
    content = read_json(path)
    with damaged_file_errors(path):
        data = content["plan"]["data"]
        if (
            origin not in (data, str(Path(data).resolve()))
            or "forecasts" not in content
        ):
            return None
        first = content["forecasts"][0]
        return CurveForecast(
            path=path.parent,
            metric=METRICS[content["metric"]],
            images=round(first["images"]),
            expected=first["expected"],
            interval=(first["low"], first["high"]),
        )
