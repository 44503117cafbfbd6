"""A verb of the command line: the functions that add its flags and run it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verb:
    """A verb; the first line of its module's docstring is its help.

    Args:
        configure: Adds the arguments to a parser.
        run: Runs the parsed arguments and returns the exit code.
    """

    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]

    @property
    def help(self) -> str:
        """Return one sentence on what the verb does."""
        return (sys.modules[self.configure.__module__].__doc__ or "").splitlines()[0]


def add_verbs(subparsers: Any, verbs: Mapping[str, Verb], **json: Any) -> None:
    """Add a parser for each verb; every verb has `--json`, with the options `json`."""
    for name, verb in verbs.items():
        parser = subparsers.add_parser(
            name, help=verb.help, description=verb.help, allow_abbrev=False
        )
        parser.add_argument(
            "--json", action="store_true", help="print JSON to stdout", **json
        )
        verb.configure(parser)
