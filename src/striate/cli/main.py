"""The command line: find the verb, run it, turn mistakes into messages."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from striate.cli import (
    compare,
    data,
    evaluate,
    explain,
    models,
    predict,
    report,
    summary,
    train,
    transfer,
)
from striate.core.errors import SettingError, StriateError
from striate.core.registry import closest_names
from striate.engine.distributed.rank_info import check_single_process

VERBS = {
    "train": train,
    "transfer": transfer,
    "evaluate": evaluate,
    "predict": predict,
    "summary": summary,
    "explain": explain,
    "compare": compare,
    "data": data,
    "models": models,
    "report": report,
}
RANKED = ("train",)  # a verb's process under torchrun does its share, not the whole


class _Parser(argparse.ArgumentParser):
    """An argument parser that answers a wrong name with the nearest right ones."""

    def error(self, message: str) -> NoReturn:
        known = [flag for action in self._actions for flag in action.option_strings]
        wrong = [word for word in message.split() if word.startswith("--")]
        close = (
            closest_names(wrong[0], known)
            if "unrecognized" in message and wrong
            else []
        )
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise SettingError(message, fix=f"{hint}see {self.prog} --help")


class _VerbParser(_Parser):
    """A verb's own parser: it, not the program's, answers for its unknown flags."""

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return options, rest


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    # Prefixes of flags would be frozen by use: --ep must not quietly mean --epochs.
    parser = _Parser(
        prog="striate",
        description="The workbench for convolutional networks.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_VerbParser)
    for name, module in VERBS.items():
        words = (module.__doc__ or "").splitlines()[0]
        verb = verbs.add_parser(name, help=words, description=words, allow_abbrev=False)
        verb.add_argument("--json", action="store_true", help="print JSON on stdout")
        module.configure(verb)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0 is fine, 1 findings, 2 a usage error, 130 stopped by Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _speak_anyhow()
    try:
        return _run(build_parser(), given)
    except StriateError as error:
        try:
            if not error.reported_elsewhere:
                _print_error(error, "--json" in given)
        except OSError:  # the terminal has closed
            _fall_silent()
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`); nothing is left to say to it.
        _fall_silent()
        return 0


def _fall_silent() -> None:
    """Let what is still to be written, also on leaving, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for handle in (1, 2):
        os.dup2(nowhere, handle)


def _speak_anyhow() -> None:
    """Let a terminal without UTF-8 show `?` for `×` rather than stop the work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _run(parser: argparse.ArgumentParser, given: Sequence[str]) -> int:
    _check_verb(parser, given)
    options = parser.parse_args(given)
    if options.version:
        return _print_version()
    if options.verb is None:
        parser.print_help()
        return 2
    if options.verb not in RANKED:
        check_single_process(f"striate {options.verb}")
    return int(VERBS[options.verb].run(options))


def _check_verb(parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
    word = given[0] if given else ""
    if not word or word.startswith("-") or word in VERBS:
        return
    close = closest_names(word, VERBS)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    parser.error(f"no verb is called '{word}'; {hint}verbs: {', '.join(VERBS)}")


def _print_error(error: StriateError, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.as_dict()))
        return
    print(f"striate: {error}", file=sys.stderr)


def _print_version() -> int:
    from importlib.metadata import version

    print(f"striate {version('striate')}")
    return 0
