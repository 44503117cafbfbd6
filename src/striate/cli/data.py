"""Look at a set of images before training: check it, preview it, plan for more."""

from __future__ import annotations

import argparse
from types import ModuleType

from striate.cli import (
    data_augment,
    data_check,
    data_curve,
    data_preview,
    data_split,
)

# One module a subverb, as in `cli.main`: a docstring, `configure` and `run`.
SUBVERBS: dict[str, ModuleType] = {
    "check": data_check,
    "split": data_split,
    "preview": data_preview,
    "augment": data_augment,
    "curve": data_curve,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subverbs, each with its own flags."""
    subverbs = parser.add_subparsers(
        dest="subverb", metavar="WHAT", required=True, parser_class=type(parser)
    )
    for name, module in SUBVERBS.items():
        words = (module.__doc__ or "").splitlines()[0]
        child = subverbs.add_parser(
            name, help=words, description=words, allow_abbrev=False
        )
        # SUPPRESS: `data --json check` must not be undone by the child's default.
        child.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print JSON on stdout",
        )
        module.configure(child)


def run(options: argparse.Namespace) -> int:
    """Run the chosen subverb."""
    return int(SUBVERBS[options.subverb].run(options))
