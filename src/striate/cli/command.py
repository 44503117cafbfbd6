"""Commands of the command line: functions that add the flags and run the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.files import refuse_existing

# Types of flags by the placeholder of the value; the others are text.
FLAG_TYPES = {"N": int, "F": float, "FILE": Path, "DIR": Path, "FOLDER": Path}


@dataclass(frozen=True)
class Verb:
    """A command such as `train`; its help text is the first line of its module."""

    # adds the arguments to a parser
    configure: Callable[[argparse.ArgumentParser], None]
    # runs the parsed arguments and returns the exit code
    run: Callable[[argparse.Namespace], int]

    @property
    def help(self) -> str:
        """Return the help text: the first docstring line of the command's module."""
        return (sys.modules[self.configure.__module__].__doc__ or "").splitlines()[0]


def add_verbs(subparsers: Any, verbs: Mapping[str, Verb], **json: Any) -> None:
    """Add a parser for each command, with `json` as arguments of its flag `--json`."""
    for name, verb in verbs.items():
        parser = subparsers.add_parser(
            name, help=verb.help, description=verb.help, allow_abbrev=False
        )
        text = "print the result as JSON to stdout"
        parser.add_argument("--json", action="store_true", help=text, **json)
        verb.configure(parser)


def check_output_files(options: argparse.Namespace, *names: str) -> None:
    """Refuse output files that already exist, and one file for two flags.

    Call this before the work starts. `names` are flags such as `html` and `csv`; the
    flag `--overwrite` permits to replace existing files.

    Raises:
        RunError: A file already exists and `--overwrite` is not given.
        SettingError: Two flags have the same file.
    """
    given: dict[Path, str] = {}
    for name in names:
        path: Path | None = getattr(options, name)
        if path is None:
            continue
        refuse_existing(path, options.overwrite)
        other = given.setdefault(path.resolve(), name)
        if other != name:
            what = f"--{other} and --{name} have the same file"
            raise SettingError(what, where=path, fix="give two different files")


@contextmanager
def stdout_for_json(options: argparse.Namespace) -> Iterator[None]:
    """Context manager: with `--json`, what other code prints goes to stderr.

    The network of a user may print in each forward pass.
    """
    with redirect_stdout(sys.stderr) if options.json else nullcontext():
        yield


def add_flags(
    parser: argparse._ActionsContainer, flags: Mapping[str, str], **defaults: Any
) -> None:
    """Add flags such as `--out DIR`, each with its help text.

    The placeholder gives the type. `{a,b}` are choices, `IMAGE+` takes several values,
    and a flag without placeholder is a switch.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_flags(parser, {"--seed N": "random seed", "--json": "JSON"}, seed=0)
        >>> parser.parse_args(["--seed", "3"])
        Namespace(seed=3, json=False)
    """
    for flag, text in flags.items():
        name, _, value = flag.partition(" ")
        options: dict[str, Any] = {"action": "store_true"}
        if value.startswith("{"):
            options = {"choices": tuple(value[1:-1].split(","))}
        elif value:
            metavar = value.rstrip("?*+")
            options = {"metavar": metavar, "type": FLAG_TYPES.get(metavar)}
            options |= {"nargs": value[-1]} if value != metavar else {}
        parser.add_argument(name, help=text, **options)
    parser.set_defaults(**defaults)


def keep_earlier_values(parser: argparse.ArgumentParser, *names: str) -> None:
    """Let flags of a subcommand keep the values that stand before the subcommand.

    Without this, the subcommand's default would replace a value of the same flag of
    the command above it. That command has the default.
    """
    for action in parser._actions:
        if action.dest in names:
            action.default = argparse.SUPPRESS
