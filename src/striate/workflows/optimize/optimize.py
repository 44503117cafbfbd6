"""`st.optimize`: race the engines of this machine, and write the best variant."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from striate.core.cpu_count import cpu_count
from striate.core.errors import SettingError
from striate.core.files import hash_file, refuse_existing, write_bytes, write_json
from striate.core.findings import Prose, Table
from striate.core.notebook import NotebookResult
from striate.exporters.parity import NetworkPipeline
from striate.exporters.quantize import cpu_name, needs_seven_bits
from striate.exporters.race import RaceTimes
from striate.run import layout
from striate.run.run import Run
from striate.workflows.export.pipeline import export_metadata, run_pipeline
from striate.workflows.optimize.choose import Choice, Variant, choose_variant
from striate.workflows.optimize.engines import Entrants, list_entrants
from striate.workflows.optimize.findings import choice_sentences, race_table
from striate.workflows.optimize.images import (
    calibration_images,
    labeled_images,
    validation_subset,
)
from striate.workflows.optimize.measure import (
    FEWEST_IMAGES,
    FIRST,
    AccuracyTest,
    RaceSetting,
    TimeBudget,
    compare_answers,
    race_engines,
)
from striate.workflows.optimize.options import OptimizeOptions, OptimizeSettings

RACE = "race.json"
FOLDER = "optimized"
RACE_FORMAT = 1
PACKAGES = ("striate", "torch", "numpy", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class OptimizeResult(NotebookResult):
    """Measurements of all engines, the recommended one, and the written files."""

    options: OptimizeOptions
    choice: Choice
    variants: tuple[Variant, ...]
    times: Mapping[RaceSetting, Mapping[str, RaceTimes]]  # by setting and variant
    tests: Mapping[str, AccuracyTest]  # by variant
    notes: tuple[str, ...]
    facts: Mapping[str, Any]  # run, machine, versions, calibration
    paths: tuple[Path, ...] = ()

    @property
    def best(self) -> Variant:
        """Return the recommended variant."""
        return self.choice.best

    def table(self) -> Table:
        """Return all measurements as a table."""
        return race_table(self.variants, self.choice, self.times)

    @property
    def blocks(self) -> list[Prose | Table]:
        """Return the table, the recommendation and its reasons."""
        sentences = choice_sentences(self.choice, self.variants, self.options)
        return [self.table(), *sentences, *(Prose(n, "warning") for n in self.notes)]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `race.json`, and the written files."""
        return {**self.record(), "files": [str(path) for path in self.paths]}

    def record(self) -> dict[str, Any]:
        """Return the content of `race.json`."""
        file = next((p.name for p in self.paths if p.name != RACE), None)
        best, fp32 = self.choice.best, self.choice.fp32
        return {
            "format": RACE_FORMAT,
            **self.facts,
            "goal": self.options.goal,
            "max_drop": self.options.max_drop,
            "images": best.pair.count,
            "recommended": {
                "engine": best.engine,
                "precision": best.precision,
                "file": file,
            },
            "fastest_fp32": fp32.engine,
            "variants": [self._variant(variant) for variant in self.variants],
            "notes": list(self.notes),
        }

    def _variant(self, variant: Variant) -> dict[str, Any]:
        test = self.tests[variant.name]
        low, high = variant.pair.interval
        times = [
            {
                **asdict(setting),
                "cpu_seconds": rows[variant.name].cpu_seconds,
                "wall_seconds": rows[variant.name].wall_seconds,
                "rounds": len(rows[variant.name].cpu),
            }
            for setting, rows in self.times.items()
        ]
        return {
            "engine": variant.engine,
            "precision": variant.precision,
            "bytes": variant.size,
            "accuracy": variant.pair.accuracies[1],
            "accuracy_lost": variant.lost,
            "accuracy_lost_interval": [-high, -low],
            "exact": variant.exact,
            "same_class": test.same_class,
            "max_probability_difference": test.max_difference,
            "pareto": variant.name in self.choice.pareto,
            "rejected": self.choice.rejected.get(variant.name, ""),
            "times": times,
        }

    def __str__(self) -> str:
        gain = self.choice.reference.time / self.best.time
        return f"{self.best.name}: {gain:.1f} times the speed of PyTorch"


def optimize(
    run: Run | str | Path,
    out: str | Path | None = None,
    **settings: Unpack[OptimizeSettings],
) -> OptimizeResult:
    """Race PyTorch, ONNX Runtime and OpenVINO in fp32 and int8 on this machine.

    The recommended variant is written only if it is faster (or smaller, by the goal)
    and if it keeps the accuracy. The results are written to `race.json`.

    Args:
        run: A finished run, or its folder.
        out: The folder. Default: `optimized` in the folder of the run.
        settings: Fields of `OptimizeOptions`, such as `max_drop=0.5`, `goal="size"`.

    Raises:
        SettingError: A setting is wrong, the budget is too small, or a package is
            missing.
        RunError: The run is not finished, or a file exists.

    Example:
        >>> import striate as st  # doctest: +SKIP
        >>> st.optimize("runs/train/digits", max_drop=1.0).table()  # doctest: +SKIP
    """
    options = OptimizeOptions(**settings)
    budget = TimeBudget(options.budget)
    run = run if isinstance(run, Run) else Run(run)
    folder = run.path / FOLDER if out is None else Path(out)
    _refuse_existing_race(folder, options.overwrite)
    pipeline = run_pipeline(run)
    available = len(validation_subset(run))
    image = labeled_images(run, 1)[0]
    budget.require(pipeline, image)
    entrants = _entrants(run, pipeline, options)
    race = race_engines(entrants.entrants, image, budget)
    count = int(budget.left / 2 / race.seconds)
    count = min(available, max(count, FEWEST_IMAGES))
    images, labels = labeled_images(run, count)
    tests = compare_answers(race.engines, images, labels, pipeline.probabilities)
    variants = _variants(entrants, race.times[FIRST], tests)
    result = OptimizeResult(
        options=options,
        choice=choose_variant(variants, options.goal, options.max_drop),
        variants=variants,
        times=race.times,
        tests=tests,
        notes=(*entrants.notes, *_budget_notes(race.skipped, count, available)),
        facts=_facts(run, entrants, images),
    )
    return _written(result, entrants, folder, run.path.name)


def _refuse_existing_race(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        what, fix = "the output folder is a file", "give the name of a folder"
        raise SettingError(what, where=folder, fix=fix)
    refuse_existing(folder / RACE, overwrite)


def _entrants(
    run: Run, pipeline: NetworkPipeline, options: OptimizeOptions
) -> Entrants:
    quantized = "int8" in options.methods
    entrants = list_entrants(
        pipeline,
        calibration_images(run) if quantized else None,
        (run.path / layout.BEST).stat().st_size,
        export_metadata(run),
    )
    if "engine" in options.methods:
        return entrants
    int8 = [e for e in entrants.entrants if not e.payload or e.precision == "int8"]
    return Entrants(
        entrants=tuple(int8),
        notes=entrants.notes,
        quantization=entrants.quantization,
    )


def _variants(
    entrants: Entrants,
    times: Mapping[str, RaceTimes],
    tests: Mapping[str, AccuracyTest],
) -> tuple[Variant, ...]:
    return tuple(
        Variant(
            engine=e.engine,
            precision=e.precision,
            seconds=times[e.name].cpu,
            size=e.size,
            pair=tests[e.name].pair,
            exact=e.precision == "fp32" and tests[e.name].exact,
        )
        for e in entrants.entrants
    )


def _budget_notes(skipped: Sequence[str], count: int, available: int) -> list[str]:
    notes = []
    if skipped:
        notes.append(f"The time budget left no time for: {'; '.join(skipped)}.")
    if count < available:
        text = f"The time budget left time for {count:,} of the {available:,} "
        notes.append(f"{text}validation images.")
    return notes


def _facts(run: Run, entrants: Entrants, images: np.ndarray) -> dict[str, Any]:
    """Return what the measurements depend on."""
    return {
        "run": run.path.name,
        "network": run.recipe.model,
        "weights_sha256": hash_file(run.path / layout.BEST),
        "input_shape": list(images.shape[1:]),
        "machine": {
            "processor": cpu_name(),
            "system": platform.platform(),
            "cores": cpu_count(),
            "seven_bit_weights": needs_seven_bits(),
        },
        "versions": {name: text for name in PACKAGES if (text := _version(name))},
        "quantization": entrants.quantization,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _written(
    result: OptimizeResult, entrants: Entrants, folder: Path, name: str
) -> OptimizeResult:
    """Write the recommended variant and `race.json`; return the result with paths."""
    best = result.best
    entrant = next(e for e in entrants.entrants if e.name == best.name)
    paths = [folder / RACE]
    if entrant.payload:
        suffix = "-int8" if best.precision == "int8" else ""
        paths.insert(0, folder / f"{name}{suffix}.onnx")
        refuse_existing(paths[0], result.options.overwrite)
        write_bytes(paths[0], entrant.payload)
    fields = {key: getattr(result, key) for key in result.__dataclass_fields__}
    written = OptimizeResult(**{**fields, "paths": tuple(paths)})
    write_json(folder / RACE, written.record())
    return written
