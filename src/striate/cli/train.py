"""Train a network on images and write a run folder with its report."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.core.errors import SettingError
from striate.engine.distributed.rank_info import RankInfo
from striate.run.presets import PRESETS
from striate.run.recipe import Recipe, make_recipe, setting_types
from striate.run.yaml_io import read_settings

if TYPE_CHECKING:
    from striate.data.image_data import ImageData
    from striate.run.run import Run
    from striate.workflows.train.resume import Resumed

METAVARS = {str(int): "N", str(float): "F", str(str): "NAME"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the settings, and the run folder's own flags."""
    parser.usage = "striate train [DATA] [settings]"
    add_settings(parser)
    add_folder(parser, "run folder")
    parser.add_argument(
        "--resume", metavar="RUN", help="go on with a stopped run; needs nothing else"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write event files for TensorBoard"
    )


def add_folder(parser: argparse.ArgumentParser, called: str) -> None:
    """Add the flags of long work that is kept in a folder."""
    words = f"replace the {called} in --out"
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"the {called}")
    parser.add_argument("--overwrite", action="store_true", help=words)
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def add_settings(
    parser: argparse.ArgumentParser, without: Collection[str] = ()
) -> None:
    """Add the data and a flag for every setting of a recipe, but for some."""
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="digits, fashion-mnist, a folder, a CSV or IDX files",
    )
    kinds = setting_types()
    for field in dataclasses.fields(Recipe):
        if field.name not in ("data", *without):
            add_setting(parser, field, kinds[field.name])
    parser.add_argument(
        "--preset", metavar="NAME", help=f"one of: {', '.join(PRESETS)}"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")


def add_setting(
    parser: argparse.ArgumentParser, field: dataclasses.Field[Any], kind: Any
) -> None:
    """Add a setting's flag, with its help, choices and default."""
    flag = f"--{field.name.replace('_', '-')}"
    if kind is bool:
        words, default = field.metadata["help"], argparse.SUPPRESS
        parser.add_argument(flag, action="store_true", help=words, default=default)
        return
    choices = field.metadata.get("choices")
    default = "" if field.default is None else f" ({field.default})"
    listed = f": {', '.join(choices)}" if choices else ""
    if field.name == "freeze":
        words, default = field.metadata["help"], argparse.SUPPRESS
        how: dict[str, Any] = {"action": "append", "metavar": "GLOB"}
        parser.add_argument(flag, help=words, default=default, **how)
        return
    metavar = METAVARS.get(str(kind), "SIZE")
    words = f"{field.metadata['help']}{listed}{default}"
    parser.add_argument(flag, metavar=metavar, help=words, default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Train; print the run folder first and last."""
    if options.resume:
        return _resume(options)
    recipe = read_recipe(options)

    from striate.cli.printing import print_data, print_end, print_resumed
    from striate.workflows.train.train import summary_json, train_recipe

    quiet = options.quiet or options.json

    def begun(data: ImageData, folder: Path) -> None:
        if not options.json:
            print_data(data, folder)

    def gone_on(resumed: Resumed) -> None:
        if not options.json:
            print_resumed(resumed)

    finished: Run = train_recipe(
        recipe,
        out=options.out,
        overwrite=options.overwrite,
        begun=begun,
        gone_on=gone_on,
        quiet=quiet,
        tensorboard=options.tensorboard,
    )
    if not RankInfo.from_environment().is_main:
        return 0
    if options.json:
        print(summary_json(finished))
    else:
        print_end(finished)
    return 0


def read_recipe(options: argparse.Namespace) -> Recipe:
    """Lay flags over the config file over the preset over the defaults."""
    preset = PRESETS[options.preset].settings if options.preset else {}
    config = read_settings(options.config) if options.config else {}
    return make_recipe(preset, config, _flags(options))


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    known = setting_types()
    return {
        name: value
        for name, value in vars(options).items()
        if name in known and not (name == "data" and value is None)
    }


def _resume(options: argparse.Namespace) -> int:
    """Go on with a run; say first from where, and whether that is exact."""
    for name in ("data", "preset", "config", "out", "overwrite"):
        if getattr(options, name):
            fix = f"striate train --resume {options.resume} needs nothing else"
            flag = "DATA" if name == "data" else f"--{name}"
            raise SettingError("a run that is resumed has its own", where=flag, fix=fix)

    from striate.cli.printing import print_end, print_resumed
    from striate.workflows.train.resume import go_on
    from striate.workflows.train.train import summary_json

    how: list[Resumed] = []

    def begun(resumed: Resumed) -> None:
        how.append(resumed)
        if not options.json:
            print_resumed(resumed)

    quiet = options.quiet or options.json
    finished = go_on(
        options.resume,
        _flags(options),
        begun=begun,
        quiet=quiet,
        tensorboard=options.tensorboard,
    )
    if not RankInfo.from_environment().is_main:
        return 0
    if options.json:
        print(summary_json(finished, resumed_at=how[0].at.step, exact=how[0].exact))
    else:
        print_end(finished)
    return 0
