"""Show augmented images; with a trained run, also which classes lose their label."""

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
from striate.run.parse_settings import setting_types
from striate.run.recipe import Recipe

if TYPE_CHECKING:
    from striate.workflows.data_augment.augment import Augmented

SETTINGS = ("augment", *RANGES, "image_size", "in_chans", "resize", "seed")


def configure_data_augment(parser: argparse.ArgumentParser) -> None:
    """Add the data or run, the augmentation, and the folder."""
    parser.add_argument(
        "target",
        metavar="DATA|RUN",
        help="images, as for `striate train`; or a run folder or its name, whose model "
        "then measures which classes are damaged by the augmentation",
    )
    kinds = setting_types()
    for field in dataclasses.fields(Recipe):
        if field.name in SETTINGS:
            add_setting(parser, _here(field), kinds[field.name])
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write (default runs/augment/NAME)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the folder in --out"
    )


def _here(field: dataclasses.Field[Any]) -> dataclasses.Field[Any]:
    """Return a setting; the default of `augment` is `six` here."""
    if field.name == "augment":
        field = copy.copy(field)
        field.default = "six"
    return field


def run_data_augment(options: argparse.Namespace) -> int:
    """Augment, measure and print; the exit code is 1 if a class is damaged."""
    from striate.workflows.data_augment.augment import preview_augment

    settings = {
        name: value for name, value in vars(options).items() if name in SETTINGS
    }
    with _bar(options.json) as tick:
        result = preview_augment(
            options.target,
            settings,
            out=options.out,
            overwrite=options.overwrite,
            tick=tick,
        )
    if options.json:
        print(json.dumps(_data(result)))
    else:
        _print(result)
    return 1 if result.safety is not None and result.safety.dangers else 0


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr the progress of the predictions, in a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    visible = screen.is_terminal and not quiet
    with Progress(console=screen, transient=True, disable=not visible) as progress:
        task = progress.add_task("predicting", total=None)
        yield lambda count, total: progress.update(task, completed=count, total=total)


def _data(result: Augmented) -> dict[str, Any]:
    from striate.report.records import records
    from striate.workflows.data_augment.label_safety_findings import danger_dict, ends

    data: dict[str, Any] = {
        "folder": str(result.folder),
        "augment": dataclasses.asdict(result.augment),
    }
    if result.safety is not None:
        data["images"] = result.safety.images
        data["changes"] = records(ends(result.safety))
        data["dangers"] = [danger_dict(danger) for danger in result.safety.dangers]
    return data


def _print(result: Augmented) -> None:
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.run.layout import REPORT
    from striate.workflows.data_augment.augment import PREVIEW
    from striate.workflows.data_augment.augment_grid import ranges
    from striate.workflows.data_augment.label_safety_findings import summary

    out = console()
    if result.safety is None:
        print_blocks([ranges(result.augment)], out)
        text = "To find damaged classes with a trained run: striate data augment RUN"
        out.print(text, style="dim", markup=False)
    else:
        print_blocks(summary(result.safety), out)
    out.print(f"image {result.folder / PREVIEW}", markup=False)
    out.print(f"report  {result.folder / REPORT}", markup=False)
