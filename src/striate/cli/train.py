"""Train a network on pictures and write a run folder with its report."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.runs.presets import PRESETS
from striate.runs.recipe import Recipe, make_recipe, read_settings, setting_types

if TYPE_CHECKING:
    from striate.data.load import ImageData
    from striate.runs.run import Run

METAVARS = {str(int): "N", str(float): "F", str(str): "NAME"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting of a recipe, and the run folder's own."""
    parser.usage = "striate train [DATA] [settings]"
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="digits, fashion-mnist, a folder, a CSV or IDX files",
    )
    kinds = setting_types()
    for field in dataclasses.fields(Recipe):
        if field.name != "data":
            _add(parser, field, kinds[field.name])
    parser.add_argument(
        "--preset", metavar="NAME", help=f"one of: {', '.join(PRESETS)}"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run folder in --out"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write event files for TensorBoard"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _add(
    parser: argparse.ArgumentParser, field: dataclasses.Field[Any], kind: Any
) -> None:
    flag = f"--{field.name.replace('_', '-')}"
    choices = field.metadata.get("choices")
    default = "" if field.default is None else f" ({field.default})"
    listed = f": {', '.join(choices)}" if choices else ""
    metavar = METAVARS.get(str(kind), "SIZE")
    words = f"{field.metadata['help']}{listed}{default}"
    parser.add_argument(flag, metavar=metavar, help=words, default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Train; print the run folder first and last."""
    recipe = _recipe(options)

    from striate.cli.show import print_data, print_end
    from striate.runs.train import summary_json, train_recipe

    quiet = options.quiet or options.json

    def begun(data: ImageData, folder: Path) -> None:
        if not options.json:
            print_data(data, folder)

    finished: Run = train_recipe(
        recipe,
        out=options.out,
        overwrite=options.overwrite,
        begun=begun,
        quiet=quiet,
        tensorboard=options.tensorboard,
    )
    if options.json:
        print(summary_json(finished))
    else:
        print_end(finished)
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    """Lay flags over the config file over the preset over the defaults."""
    preset = PRESETS[options.preset].settings if options.preset else {}
    config = read_settings(options.config) if options.config else {}
    known = setting_types()
    flags = {
        name: value
        for name, value in vars(options).items()
        if name in known and not (name == "data" and value is None)
    }
    return make_recipe(preset, config, flags)
