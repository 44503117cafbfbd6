"""Show augmented images; for a run, test which classes lose accuracy."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from striate.cli.command import add_flags, stdout_for_json
from striate.cli.train import add_setting
from striate.data.augment.augment import RANGES
from striate.run.parse_settings import setting_fields

if TYPE_CHECKING:
    from striate.workflows.data_augment.augment import AugmentPreview

SETTINGS = ("augment", *RANGES, "image_size", "in_chans", "resize", "seed")

FLAGS = {
    "--out DIR": "output folder (default runs/augment/DATA)",
    "--overwrite": "replace the folder given by --out",
}


def configure_data_augment(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate data augment`."""
    parser.add_argument(
        "target",
        metavar="DATA|RUN",
        help="labeled images, as for `striate train`; or a run (folder or name), to "
        "test which classes lose accuracy under augmentation",
    )
    for field in setting_fields(SETTINGS):
        default = "six" if field.name == "augment" else field.default
        add_setting(parser, field, default)
    add_flags(parser, FLAGS)


def run_data_augment(options: argparse.Namespace) -> int:
    """Write and print the preview; return 1 if a class loses accuracy."""
    from striate.workflows.data_augment.augment import preview_augment

    given = vars(options)
    settings = {name: given[name] for name in given if name in SETTINGS}
    with _bar(options.json) as tick, stdout_for_json(options):
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
    return 1 if result.safety is not None and result.safety.unsafe else 0


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that shows progress on stderr, if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    watched = screen.is_terminal and not quiet
    with Progress(console=screen, transient=True, disable=not watched) as progress:
        task = progress.add_task("predicting", total=None)
        yield lambda count, total: progress.update(task, completed=count, total=total)


def _data(result: AugmentPreview) -> dict[str, Any]:
    from striate.report.table_records import records
    from striate.workflows.data_augment.label_safety_findings import (
        range_end_table,
        unsafe_label_dict,
    )

    data: dict[str, Any] = {
        "folder": str(result.folder),
        "augment": dataclasses.asdict(result.augment),
    }
    if result.safety is not None:
        data["images"] = result.safety.images
        data["transforms"] = records(range_end_table(result.safety))
        data["unsafe"] = [unsafe_label_dict(label) for label in result.safety.unsafe]
    return data


def _print(result: AugmentPreview) -> None:
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.run.layout import REPORT
    from striate.workflows.data_augment.augment import PREVIEW
    from striate.workflows.data_augment.augment_grid import range_table
    from striate.workflows.data_augment.label_safety_findings import (
        label_safety_summary,
    )

    out = console()
    if result.safety is None:
        print_blocks([range_table(result.augment)], out)
        text = "striate data augment RUN  tests which classes of a run lose accuracy"
        out.print(text, style="dim", markup=False)
    else:
        print_blocks(label_safety_summary(result.safety), out)
    out.print(f"images  {result.folder / PREVIEW}", markup=False)
    out.print(f"report  {result.folder / REPORT}", markup=False)
