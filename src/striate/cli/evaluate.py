"""Judge a trained network on a part of its own data, or on other labelled pictures."""

from __future__ import annotations

import argparse
import json


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the run, and what to judge it on."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, or its name")
    parser.add_argument(
        "--part", choices=("train", "val", "test"), help="test where there is one"
    )
    parser.add_argument("--data", metavar="DATA", help="other pictures, laid out alike")


def run(options: argparse.Namespace) -> int:
    """Judge and print; with findings of unusable files the exit code is 1."""
    from striate.cli.show import console, print_score
    from striate.runs.run import Run, score_dict

    found = Run(options.run_folder)
    part, name, skipped = found.part_for(options.data, options.part)
    score = found.judge(part).score()
    if options.json:
        figures = {"run": str(found.path), "part": name, **score_dict(score)}
        print(json.dumps({**figures, "skipped": len(skipped)}))
        return 1 if skipped else 0
    print_score(name, score)
    out = console()
    for skip in skipped:
        text = f"not used: {skip.path}: {skip.reason} ({skip.detail})"
        out.print(text, style="yellow", markup=False)
    return 1 if skipped else 0
