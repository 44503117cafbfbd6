"""Name the class of new pictures: files, folders or patterns."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the run, the pictures, and where to keep the answers."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, or its name")
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="file, folder or 'pattern'"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv or .json")


def run(options: argparse.Namespace) -> int:
    """Predict and print; with files that could not be used the exit code is 1."""
    from striate.cli.show import print_answers
    from striate.runs.predict import answers_dict, predict, save_answers
    from striate.runs.run import Run

    answers = predict(Run(options.run_folder), options.pictures)
    if options.out:
        save_answers(answers, options.out)
    if options.json:
        print(json.dumps(answers_dict(answers)))
    else:
        print_answers(answers)
    return 1 if answers.skipped else 0
