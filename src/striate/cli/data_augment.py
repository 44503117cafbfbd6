"""Show augmented images; of a trained run, point out labels that do not survive."""

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
    from striate.workflows.data_augment.augment import Augmented

SETTINGS = ("augment", *RANGES, "image_size", "in_chans", "resize", "seed")


def configure_data_augment(parser: argparse.ArgumentParser) -> None:
    """Add what to look at, the ranges, and the folder."""
    parser.add_argument(
        "target",
        metavar="DATA|RUN",
        help="as for `train`; or a run folder or its name, whose network then says "
        "which classes suffer",
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


def run_data_augment(options: argparse.Namespace) -> int:
    """Draw, measure, print; with classes that suffer the exit code is 1."""
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
    return 1 if made.safety is not None and made.safety.dangers else 0


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how far the asking is; nothing where nobody watches."""
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    watched = screen.is_terminal and not quiet
    with Progress(console=screen, transient=True, disable=not watched) as progress:
        task = progress.add_task("asking the network", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _data(made: Augmented) -> dict[str, Any]:
    from striate.report.records import records
    from striate.workflows.data_augment.label_safety_findings import danger_dict, ends

    data: dict[str, Any] = {
        "folder": str(made.folder),
        "augment": dataclasses.asdict(made.augment),
    }
    if made.safety is not None:
        data["images"] = made.safety.images
        data["changes"] = records(ends(made.safety))
        data["dangers"] = [danger_dict(danger) for danger in made.safety.dangers]
    return data


def _print(made: Augmented) -> None:
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.run.layout import REPORT
    from striate.workflows.data_augment.augment import PREVIEW
    from striate.workflows.data_augment.augment_grid import ranges
    from striate.workflows.data_augment.label_safety_findings import summary

    out = console()
    if made.safety is None:
        print_blocks([ranges(made.augment)], out)
        text = "striate data augment RUN  asks a trained run which classes suffer"
        out.print(text, style="dim", markup=False)
    else:
        print_blocks(summary(made.safety), out)
    out.print(f"image {made.folder / PREVIEW}", markup=False)
    out.print(f"report  {made.folder / REPORT}", markup=False)
