"""`data augment`: write a preview of augmented images and a label safety report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate.core.files import write_csv, write_json, write_text
from striate.core.findings import Images, Page
from striate.data.augment.augment import Augment
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.report.html import render_page
from striate.report.png import save_images
from striate.run import layout as names
from striate.run.manifest import first_manifest, now, update_manifest
from striate.run.parse_settings import make_recipe
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.data_augment import augment_grid
from striate.workflows.data_augment import label_safety_findings as safety_findings
from striate.workflows.data_augment.label_safety import (
    LabelSafety,
    measure_label_safety,
)

PREVIEW, AMOUNTS = "preview.png", "amounts.csv"
COLUMNS = (
    *("transform", "amount", "class", "images", "correct", "low", "high"),
    "most_frequent_error",
)
Tick = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class AugmentPreview:
    """Result of `data augment`: the output folder and the label safety results."""

    folder: Path  # output folder: `report.html`, `preview.png`, for a run `amounts.csv`
    augment: Augment  # the augmentation settings that were previewed
    # accuracy of a run on transformed images; None for plain data
    safety: LabelSafety | None


def preview_augment(
    target: str | Run,
    settings: Mapping[str, Any],
    *,
    out: Path | None = None,
    overwrite: bool = False,
    tick: Tick = lambda count, total: None,
) -> AugmentPreview:
    """Write an augmentation preview; for a run, also test if labels stay correct.

    Args:
        target: Data as for `train`, or a run: its folder, name or `Run` object.
        settings: Recipe settings that override `augment="six"` or the run's settings.
        out: The output folder; default `runs/augment/<data>`.
        overwrite: Replace an existing output folder of `data augment`.
        tick: Called with the numbers (done, total) during prediction.

    Raises:
        StriateError: The data or the settings are not valid.
    """
    names.check_out(out, overwrite)
    run = target if isinstance(target, Run) else _run(target)
    if run is None:
        recipe = make_recipe({"augment": "six"}, {**settings, "data": target})
        data = _load(recipe)
    else:
        default = {} if run.recipe.augmentation.is_active else {"augment": "six"}
        recipe = make_recipe(run.recipe.as_dict(), default, settings)
        data = run.data
        fix = f"preview the images without the run: striate data augment {run.origin}"
        run.labels.require_one_label("the test if labels stay correct", fix)
        _ = run.model  # fails before anything is written
    with names.new_folder("augment", data.name, out, overwrite) as folder:
        return _write(folder, run, data, recipe, tick)


def _write(
    folder: Path, run: Run | None, data: ImageData, recipe: Recipe, tick: Tick
) -> AugmentPreview:
    """Write the preview images and, for a run, the label safety report."""
    augment = recipe.augmentation
    manifest = first_manifest(folder.name, data, recipe)
    write_json(folder / names.MANIFEST, {**manifest, "augment": asdict(augment)})
    sections = augment_grid.preview_sections(data, augment, recipe.seed)
    # The grids of single transforms come first.
    images = tuple(augment_grid.section_images(sections[::-1]))
    save_images(Images(title="Augmentation", images=images), folder / PREVIEW)
    safety = None
    if run is not None and augment.has_geometry | (augment.color > 0):
        safety = measure_label_safety(run, augment, tick=tick)
        write_csv(folder / AMOUNTS, COLUMNS, safety_findings.amount_rows(safety))
        sections = [*safety_findings.label_safety_sections(safety), *sections]
    network = f", predictions of {run.path.name}" if run is not None else ""
    page = Page(
        f"{data.name} · augmentation",
        subtitle=f"{data.preprocess.spec}{network}",
        sections=tuple(sections),
        footer=f"striate · seed {recipe.seed}",
    )
    write_text(folder / names.REPORT, render_page(page))
    update_manifest(folder, status="done", finished=now())
    return AugmentPreview(folder=folder, augment=augment, safety=safety)


def _run(target: str) -> Run | None:
    """Return the run with this path or name; None if there is no such run."""
    for folder in (Path(target), Path("runs/train") / target):
        if names.is_output_folder(folder):
            return Run(folder)
    return None


def _load(recipe: Recipe) -> ImageData:
    return load_data(
        recipe.data,
        image_size=recipe.image_size,
        in_chans=recipe.in_chans,
        resize=recipe.resize or "stretch",
        val_fraction=recipe.val_fraction,
        test_fraction=recipe.test_fraction,
        seed=recipe.seed,
    )
