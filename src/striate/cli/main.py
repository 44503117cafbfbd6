"""Command-line entry point: parse arguments, run the command, print errors."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from striate.cli import (
    bundle,
    compare,
    data,
    evaluate,
    explain,
    export,
    lab,
    models,
    optimize,
    predict,
    report,
    runs,
    summary,
    train,
    transfer,
    weights,
)
from striate.cli.command import Verb, add_verbs
from striate.cli.synonyms import check_words
from striate.core.errors import SettingError, StriateError
from striate.core.format import count_text
from striate.run.refuse_torchrun import check_single_process

VERBS = {
    "train": Verb(train.configure_train, train.run_train),
    "transfer": Verb(transfer.configure_transfer, transfer.run_transfer),
    "evaluate": Verb(evaluate.configure_evaluate, evaluate.run_evaluate),
    "predict": Verb(predict.configure_predict, predict.run_predict),
    "summary": Verb(summary.configure_summary, summary.run_summary),
    "explain": Verb(explain.configure_explain, explain.run_explain),
    "export": Verb(export.configure_export, export.run_export),
    "bundle": Verb(bundle.configure_bundle, bundle.run_bundle),
    "optimize": Verb(optimize.configure_optimize, optimize.run_optimize),
    "compare": Verb(compare.configure_compare, compare.run_compare),
    "lab": Verb(lab.configure_lab, lab.run_lab),
    "runs": Verb(runs.configure_runs, runs.run_runs),
    "data": Verb(data.configure_data, data.run_data),
    "models": Verb(models.configure_models, models.run_models),
    "weights": Verb(weights.configure_weights, weights.run_weights),
    "report": Verb(report.configure_report, report.run_report),
}
DISTRIBUTED_VERBS = ("train",)  # under torchrun, each process does its share


class _Parser(argparse.ArgumentParser):
    """Argument parser whose errors are those of striate."""

    def error(self, message: str) -> NoReturn:
        raise SettingError(message, fix=f"see {self.prog} --help")


class _VerbParser(_Parser):
    """Parser of one command; its errors name the `--help` of that command."""

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return options, rest

    def format_help(self) -> str:
        """Return the help; less common settings are left out without `--help-all`."""
        hidden = [a for a in self._actions if getattr(a, "advanced", False)]
        if not hidden or getattr(self, "show_all", False):
            return super().format_help()
        texts = [action.help for action in hidden]
        for action in hidden:
            action.help = argparse.SUPPRESS
        short = super().format_help()
        for action, text in zip(hidden, texts, strict=True):
            action.help = text
        return (
            f"{short}\n{count_text(len(hidden), 'more setting')}: "
            f"{self.prog} --help-all\n"
        )


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser with all commands."""
    # No abbreviated flags: scripts would rely on --ep as a short form of --epochs.
    parser = _Parser(
        prog="striate",
        description="Design, train, inspect and evaluate convolutional networks.",
        allow_abbrev=False,
    )
    text = "print the version and exit"
    parser.add_argument("--version", action="store_true", help=text)
    kind = _VerbParser
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", parser_class=kind)
    add_verbs(verbs, VERBS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run striate with command-line arguments and return its exit code.

    0: success, 1: problems in the data, 2: usage error, 130: stopped by Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _replace_unencodable()
    try:
        return _run(build_parser(), arguments)
    except StriateError as error:
        try:
            if not error.reported_elsewhere and "--json" in arguments:
                print(json.dumps(error.as_dict()))
            elif not error.reported_elsewhere:
                print(f"striate: {error}", file=sys.stderr)
        except OSError:  # the terminal has closed
            _discard_output()
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`), so no message can be shown.
        _discard_output()
        return 0


def _discard_output() -> None:
    """Discard all further output, including the output that Python flushes at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for handle in (1, 2):
        os.dup2(devnull, handle)


def _replace_unencodable() -> None:
    """Replace characters such as `×` by `?` on terminals without UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    check_words(parser, arguments)
    options = parser.parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"striate {version('striate')}")
        return 0
    if options.verb is None:
        parser.print_help()
        return 2
    if options.verb not in DISTRIBUTED_VERBS:
        check_single_process(f"striate {options.verb}")
    return VERBS[options.verb].run(options)
