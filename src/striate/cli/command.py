"""Commands of the command line: functions that add the flags and run the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


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
    """Add a parser for each command; each gets the flag `--json`.

    Args:
        subparsers: Result of `ArgumentParser.add_subparsers`.
        verbs: Commands by name.
        json: Extra arguments of `add_argument` for the flag `--json`.
    """
    for name, verb in verbs.items():
        parser = subparsers.add_parser(
            name, help=verb.help, description=verb.help, allow_abbrev=False
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="print the result as JSON to stdout",
            **json,
        )
        verb.configure(parser)
