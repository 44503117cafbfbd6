"""Show augmented images; for a run, find labels that do not survive."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.cli.train import add_setting
from striate.data.augment.augment import RANGES
from striate.run.recipe import Recipe, setting_types

if TYPE_CHECKING:
    from striate.workflows.data_augment.augment import AugmentPreview

SETTINGS = ("augment", *RANGES, "image_size", "in_chans", "resize", "seed")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what to look at, the ranges, and the folder."""
    parser.add_argument(
        "target",
        metavar="DATA|RUN",
        help="data as for `striate train`; or a run folder or run name, to test which "
        "classes lose accuracy",
    )
    kinds = setting_types()
    for field in dataclasses.fields(Recipe):
        if field.name in SETTINGS:
            add_setting(parser, _here(field), kinds[field.name])
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the folder in --out"
    )


def _here(field: dataclasses.Field[Any]) -> dataclasses.Field[Any]:
    """Return a setting as it is here: `six` by default, or nothing would be shown."""
    if field.name == "augment":
        field = copy.copy(field)
        field.default = "six"
    return field


def run(options: argparse.Namespace) -> int:
    """Write the preview and print it; exit code 1 if a class loses accuracy."""
    from striate.workflows.data_augment.augment import preview_augment

    given = {name: value for name, value in vars(options).items() if name in SETTINGS}
    with _bar(options.json) as tick:
        made = preview_augment(
            options.target,
            given,
            out=options.out,
            overwrite=options.overwrite,
            tick=tick,
        )
    if options.json:
        print(json.dumps(_data(made)))
    else:
        _print(made)
    return 1 if made.safety is not None and made.safety.unsafe else 0


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr, only in a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    watched = screen.is_terminal and not quiet
    with Progress(console=screen, transient=True, disable=not watched) as progress:
        task = progress.add_task("predicting", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _data(made: AugmentPreview) -> dict[str, Any]:
    from striate.report.records import records
    from striate.workflows.data_augment.label_safety_findings import (
        range_end_table,
        unsafe_label_dict,
    )

    data: dict[str, Any] = {
        "folder": str(made.folder),
        "augment": dataclasses.asdict(made.augment),
    }
    if made.safety is not None:
        data["images"] = made.safety.images
        data["transforms"] = records(range_end_table(made.safety))
        data["unsafe"] = [unsafe_label_dict(label) for label in made.safety.unsafe]
    return data


def _print(made: AugmentPreview) -> None:
    from striate.cli.printing import console
    from striate.report.terminal import show
    from striate.run.layout import REPORT
    from striate.workflows.data_augment.augment import PREVIEW
    from striate.workflows.data_augment.augment_grid import range_table
    from striate.workflows.data_augment.label_safety_findings import (
        label_safety_summary,
    )

    out = console()
    if made.safety is None:
        show([range_table(made.augment)], out)
        text = "striate data augment RUN  tests which classes of a run lose accuracy"
        out.print(text, style="dim", markup=False)
    else:
        show(label_safety_summary(made.safety), out)
    out.print(f"images  {made.folder / PREVIEW}", markup=False)
    out.print(f"report  {made.folder / REPORT}", markup=False)
