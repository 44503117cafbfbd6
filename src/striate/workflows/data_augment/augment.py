"""`data augment`: from a set or a run to a folder with images and warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate.core.files import write_csv, write_json, write_text
from striate.core.findings import Images, Page, Section
from striate.data.augment.augment import Augment
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.report.html import render_page
from striate.report.png import save_images
from striate.run import layout as names
from striate.run.manifest import first_manifest, now, update_manifest
from striate.run.recipe import Recipe, make_recipe
from striate.run.run import Run
from striate.workflows.data_augment import augment_grid as grid
from striate.workflows.data_augment import label_safety_findings as safety_findings
from striate.workflows.data_augment.label_safety import Safety, measure

PREVIEW, AMOUNTS = "preview.png", "amounts.csv"
COLUMNS = (
    "change",
    "amount",
    "class",
    "images",
    "right",
    "low",
    "high",
    "most_frequent_error",
)
Tick = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """Where the images are, and what was measured.

    Args:
        folder: With `report.html`, `preview.png`, and `amounts.csv` of a run.
        augment: The ranges that were looked at.
        safety: Of a run; None where there is no network to ask.
    """

    folder: Path
    augment: Augment
    safety: Safety | None


def preview_augment(
    target: str | Run,
    settings: Mapping[str, Any],
    *,
    out: Path | None = None,
    overwrite: bool = False,
    tick: Tick = lambda done, total: None,
) -> Augmented:
    """Show augmentation on a set; of a run, measure besides whether labels survive.

    Args:
        target: Data as for `train`; a run folder, its name, or the run itself.
        settings: Settings of a recipe, over `six` or over the run's own.
        out: The folder; `runs/augment/<data>` where not given.
        overwrite: Replace such a folder that is there.
        tick: Told (done, all) while a network is asked.

    Raises:
        StriateError: The data or the settings do not admit it.
    """
    run = target if isinstance(target, Run) else _run(target)
    if run is None:
        recipe = make_recipe({"augment": "six"}, {**settings, "data": target})
        data = _load(recipe)
    else:
        recipe = _of_run(run, settings)
        data = run.data
        _ = run.model  # what cannot be read is told before anything is written
    with names.new_folder("augment", data.name, out, overwrite) as folder:
        return _shown(folder, run, data, recipe, tick)


def _shown(
    folder: Path, run: Run | None, data: ImageData, recipe: Recipe, tick: Tick
) -> Augmented:
    """Write what augmentation shows and, of a run, what labels survive."""
    augment = recipe.augmentation
    manifest = first_manifest(folder.name, data, recipe)
    write_json(folder / names.MANIFEST, {**manifest, "augment": asdict(augment)})
    found = grid.sections(data, augment, recipe.seed)
    save_images(_images(found), folder / PREVIEW)
    safety = None
    if run is not None and augment.moves | (augment.color > 0):
        safety = measure(run, augment, tick=tick)
        write_csv(folder / AMOUNTS, COLUMNS, safety_findings.rows(safety))
        found = [*safety_findings.sections(safety), *found]
    write_text(folder / names.REPORT, render_page(_page(data, run, recipe, found)))
    update_manifest(folder, status="done", finished=now())
    return Augmented(folder=folder, augment=augment, safety=safety)


def _run(target: str) -> Run | None:
    """Return the run of that path or name, if there is one."""
    for place in (Path(target), Path("runs/train") / target):
        if names.is_output_folder(place):
            return Run(place)
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


def _of_run(run: Run, settings: Mapping[str, Any]) -> Recipe:
    """Return the run's recipe with other ranges; `six` where it had none at all."""
    own = run.recipe.as_dict()
    default = {} if run.recipe.augmentation.acts else {"augment": "six"}
    return make_recipe(own, default, settings)


def _images(found: list[Section]) -> Images:
    """Return single changes first: their sheets are small and share rows."""
    sheets = grid.sheets(list(reversed(found)))
    return Images(title="Augmentation", images=tuple(sheets))


def _page(
    data: ImageData, run: Run | None, recipe: Recipe, found: list[Section]
) -> Page:
    network = f", judged by {run.path.name}" if run is not None else ""
    return Page(
        title=f"{data.name} · augmentation",
        subtitle=f"{data.preprocess.spec}{network}",
        sections=tuple(found),
        footer=f"striate · seed {recipe.seed}",
    )
