"""Train a model on images, and write a run folder with a report."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from striate.cli.command import add_flags, stdout_for_json
from striate.core.errors import SettingError
from striate.core.malloc import keep_freed_memory
from striate.core.settings import SettingsBase, flag_name
from striate.data.config import AugmentConfig, DataConfig
from striate.engine.config import OptimConfig, RuntimeConfig
from striate.engine.distributed.rank_info import RankInfo
from striate.models.config import ModelConfig
from striate.run.parse_settings import make_recipe, merge_settings, setting_types
from striate.run.presets import PRESETS
from striate.run.recipe import Recipe
from striate.run.yaml_io import read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from striate.data.image_data import ImageData
    from striate.run.choose_recipe import RecipeChoice
    from striate.run.run import Run
    from striate.workflows.train.resume import ResumeInfo

METAVARS = {int: "N", float: "F", str: "NAME", tuple[float, ...]: "F,F,…"}
# Headings in --help, with the settings below them.
GROUPS: Mapping[str, type[SettingsBase]] = {
    "model": ModelConfig,
    "optimization": OptimConfig,
    "augmentation": AugmentConfig,
    "images and split": DataConfig,
    "runtime": RuntimeConfig,
}
# Settings in --help; the others are only in --help-all.
BASIC = {
    *("model", "pretrained", "epochs", "batch_size", "lr", "class_weights"),
    *("augment", "image_size", "split", "seed", "device", "offline"),
}

DEFAULT_WEIGHTS = "by image size: mobilenet_v2 from 48 pixels on, else random weights"

DATA_FLAG = {
    "data DATA?": "labeled images: a folder with one subfolder per class, a CSV file, "
    "a folder of IDX files, tar shards, or a data set name: digits, fashion-mnist",
}
SETTINGS_FLAGS = {
    "--preset NAME": "named set of settings; --config and flags override them: "
    f"{', '.join(PRESETS)}",
    "--config FILE": "YAML file with settings; flags override them",
}
FLAGS = {
    "--resume RUN": "continue this interrupted run (folder or name); needs no other "
    "flag",
    "--tensorboard": "also write TensorBoard event files into the run folder",
}


def configure_train(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `striate train`: run settings and output folder."""
    parser.usage = "striate train [DATA] [settings]"
    add_settings(parser, pretrained=DEFAULT_WEIGHTS)
    add_folder(parser, "run folder", "runs/train/DATA-MODEL")
    add_flags(parser, FLAGS)


def add_folder(parser: argparse.ArgumentParser, name: str, default: str) -> None:
    """Add the flags --out, --overwrite and --quiet."""
    flags = {
        "--out DIR": f"{name} to write (default {default})",
        "--overwrite": f"replace the {name} given by --out if it exists",
        "--quiet": "do not print progress",
    }
    add_flags(parser, flags)


def add_settings(
    parser: argparse.ArgumentParser, without: Sequence[str] = (), **defaults: str
) -> None:
    """Add DATA, --preset, --config and a flag for each setting not in `without`.

    `defaults` are the defaults to show, where the command has its own.
    """
    add_flags(parser, DATA_FLAG)
    specs = {field.name: field for field in dataclasses.fields(Recipe)}
    text = "show all settings and exit"
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, help=text)
    for title, config in GROUPS.items():
        group = parser.add_argument_group(title)
        own = [name for name in config.__annotations__ if name in specs]
        for name in [*own, "seed"] if config is RuntimeConfig else own:
            if name not in without:
                add_setting(group, specs[name], defaults.get(name, specs[name].default))
    add_flags(parser, SETTINGS_FLAGS)


class _HelpAll(argparse.Action):
    """Flag that prints the help with all settings."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        vars(parser)["show_all"] = True
        parser.print_help()
        parser.exit()


def add_setting(
    parser: argparse._ActionsContainer, field: dataclasses.Field[Any], default: Any
) -> None:
    """Add the flag of one setting, with help text, choices and default value."""
    kind = setting_types()[field.name]
    choices = field.metadata.get("choices")
    notes = [f"one of {', '.join(choices)}"] if choices else []
    if default is not None and default is not False:
        notes.append(f"default {default}")
    options: dict[str, Any] = {}
    if kind is bool:
        options["action"] = "store_true"
    elif field.name == "freeze":
        options |= {"action": "append", "metavar": "LAYER"}
    else:
        names = (text for known, text in METAVARS.items() if known == kind)
        options["metavar"] = next(names, "SIZE")
    action = parser.add_argument(
        flag_name(field.name),
        help=field.metadata["help"] + (f" ({'; '.join(notes)})" if notes else ""),
        default=argparse.SUPPRESS,
        **options,
    )
    vars(action)["advanced"] = field.name not in BASIC


def run_train(options: argparse.Namespace) -> int:
    """Train a model, or resume a run, and print the result."""
    if options.resume:
        return _resume(options)
    from striate.cli.printing import print_resumed
    from striate.run.progress import ignore
    from striate.workflows.train.train import train_recipe

    choice = _choose(options)
    keep_freed_memory()
    if choice.transfer is not None:
        return _train_head(choice, options)
    with stdout_for_json(options):
        finished = train_recipe(
            choice.recipe,
            out=options.out,
            overwrite=options.overwrite,
            on_begin=_on_begin(choice, options),
            on_resume=ignore if options.json else print_resumed,
            quiet=options.quiet or options.json,
            tensorboard=options.tensorboard,
        )
    return print_result(finished, options)


def _choose(options: argparse.Namespace) -> RecipeChoice:
    """Return the recipe, with the network chosen if no flag names one."""
    recipe = read_recipe(options)
    explicit = {*_preset_and_config(options), *_flags(options)}
    if options.tensorboard:
        explicit.add("tensorboard")

    from striate.run.choose_recipe import choose_recipe
    from striate.run.layout import check_out

    if RankInfo.from_environment().world_size == 1:  # torchrun may go on with a run
        check_out(options.out, options.overwrite)
    return choose_recipe(recipe, explicit)


def _on_begin(
    choice: RecipeChoice, options: argparse.Namespace
) -> Callable[[ImageData, Path], None]:
    """Return a function that records the choice and prints the data of a new run."""
    from striate.cli.printing import print_data

    def on_begin(data: ImageData, folder: Path) -> None:
        choice.record(folder)
        if not options.json:
            print_data(data, folder)

    return on_begin


def _train_head(choice: RecipeChoice, options: argparse.Namespace) -> int:
    """Train a head on a frozen backbone, and print the result."""
    from striate.cli.printing import print_transfer
    from striate.run.progress import TransferCallbacks
    from striate.workflows.transfer.options import TransferOptions
    from striate.workflows.transfer.transfer import transfer_recipe

    finished = transfer_recipe(
        choice.recipe,
        TransferOptions(**(choice.transfer or {})),
        out=options.out,
        overwrite=options.overwrite,
        callbacks=TransferCallbacks(on_begin=_on_begin(choice, options)),
        verb="train",
        quiet=options.quiet or options.json,
    )
    if not options.json:
        print_transfer(finished)
    return print_result(finished, options, transfer=finished.manifest["transfer"])


def _check_moved_data(folder: str, data: str) -> None:
    """Record the new place of the images of a run; refuse other images.

    Raises:
        SettingError: The images of the run were not moved, or others are given.
    """
    from striate.run.lost_data import is_lost
    from striate.run.moved_data import use_moved_data
    from striate.run.run import Run

    run = Run(folder)
    if use_moved_data(run, data):
        return
    what = "--resume uses the images of the run"
    fix = f"leave out DATA: striate train --resume {quote(folder)}"
    if is_lost(run.origin):
        what = f"these are not the images of the run, which were at {run.origin}"
        fix = "give the folder that they were moved to"
    raise SettingError(what, where=data, fix=fix)


def print_result(run: Run, options: argparse.Namespace, **extra: Any) -> int:
    """Print the result of a finished run, only on rank 0; return the exit code."""
    from striate.cli.printing import print_end
    from striate.workflows.train.train import summary_json

    if RankInfo.from_environment().is_main:
        if options.json:
            print(summary_json(run, **extra))
        else:
            print_end(run)
    return 0


def read_recipe(options: argparse.Namespace) -> Recipe:
    """Return the settings: flags override --config, which overrides --preset."""
    return make_recipe(_preset_and_config(options), _flags(options))


def _preset_and_config(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of --preset and --config."""
    preset = PRESETS[options.preset].settings if options.preset else {}
    config = read_settings(options.config) if options.config else {}
    if config.get("trust"):
        what = "trust cannot be set in a settings file, which may come from others"
        raise SettingError(what, where=options.config, fix="use the flag --trust")
    if ".py" in str(config.get("model")) and not {"model", "trust"} & {*vars(options)}:
        _check_trusted(str(config["model"]), options)
    return merge_settings(preset, config)


def _check_trusted(model: str, options: argparse.Namespace) -> None:
    """Raise an error for unknown code that a settings file names as the network."""
    from striate.run.stored_network import is_trusted_file

    if not is_trusted_file(model):
        what = (
            f"a settings file, which may come from others, names Python code: {model}"
        )
        fix = f"name the file yourself: --model {model}, or add --trust"
        raise SettingError(what, where=options.config, fix=fix)


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    names = setting_types()
    return {
        name: value
        for name, value in vars(options).items()
        if name in names and not (name == "data" and value is None)
    }


def _resume(options: argparse.Namespace) -> int:
    """Resume a run; print the step and whether the result will be reproducible."""
    for name in ("preset", "config", "out", "overwrite"):
        if getattr(options, name):
            folder = quote(str(options.resume))
            fix = f"leave out this flag: striate train --resume {folder}"
            what = "--resume uses the value stored in the run"
            raise SettingError(what, where=f"--{name}", fix=fix)
    if options.data:
        _check_moved_data(options.resume, options.data)
        options.data = None  # recorded; the setting stays as it was typed

    from striate.cli.printing import print_resumed
    from striate.workflows.train.build_job import SessionOptions
    from striate.workflows.train.resume import resume_run

    keep_freed_memory()
    extra: dict[str, Any] = {}

    def on_resume(info: ResumeInfo) -> None:
        extra.update(resumed_at=info.state.step, exact=info.exact)
        if not options.json:
            print_resumed(info)

    quiet = options.quiet or options.json
    with stdout_for_json(options):
        finished = resume_run(
            options.resume,
            _flags(options),
            on_resume=on_resume,
            options=SessionOptions(quiet=quiet, tensorboard=options.tensorboard),
        )
    return print_result(finished, options, **extra)
