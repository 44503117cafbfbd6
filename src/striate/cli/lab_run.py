"""Run a card until its claim is decided, or until the budget ends."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from striate.cli.command import add_flags, keep_earlier_values, stdout_for_json
from striate.core.errors import SettingError

if TYPE_CHECKING:
    from striate.workflows.lab.card import Card
    from striate.workflows.lab.study import StudyOptions

QUICK_MINUTES = 15
FULL_MINUTES = 360

FLAGS = {
    "--quick": "small settings and three seeds; without CARD: all cards, in at most "
    f"{QUICK_MINUTES} minutes",
    "--full": "all cards until they are decided, in at most "
    f"{FULL_MINUTES // 60} hours",
    "--minutes F": "time budget in minutes for all given cards (default: none; without "
    f"CARD: {QUICK_MINUTES} with --quick, {FULL_MINUTES} with --full)",
    "--seeds N": "largest number of seeds (default: the last look of the card's rule)",
    "--jobs N": "number of processes, each with one thread (default: one per core)",
    "--data DATA": "other images: a folder, a CSV file or a named data set",
    "--device DEVICE": "torch device: cpu, cuda, … (default: the first accelerator, "
    "else cpu)",
    "--out FOLDER": "folder of the results (default: runs/lab)",
    "--ray-address ADDRESS": "run the trials on a Ray cluster: host:port, or auto "
    "(needs striate[ray])",
    "--quiet": "show no progress",
}


def configure_lab_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate lab run`."""
    text = "id of a card, such as E2, or a study file (.yaml)"
    parser.add_argument("cards", nargs="*", metavar="CARD", help=text)
    add_flags(parser, FLAGS)
    keep_earlier_values(parser, "out", "jobs")  # `lab --out FOLDER run`


def run_lab_run(options: argparse.Namespace) -> int:
    """Run the cards one after the other, and print the verdict of each."""
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.lab.as_dict import study_dict
    from striate.workflows.lab.findings import card_blocks
    from striate.workflows.lab.forecast import check_budget, forecast_text
    from striate.workflows.lab.progress import study_progress
    from striate.workflows.lab.study import run_study

    cards = _cards(options)
    deadline = time.monotonic() + 60 * (_minutes(options) or 0)
    out = console()
    results = []
    for number, card in enumerate(cards):
        minutes = None
        if _minutes(options):
            # The rest of the time is shared by the cards that are left.
            left = max(deadline - time.monotonic(), 0) / 60
            minutes = max(left / (len(cards) - number), 0.01)
        study = _study_options(options, minutes)
        if len(cards) == 1:
            check_budget(card, study)
        quiet = options.quiet or options.json
        if not quiet:
            out.print(forecast_text(card, study), markup=False)
        with stdout_for_json(options), study_progress(quiet) as on_progress:
            result = run_study(card, study, on_progress)
        results.append(study_dict(result))
        if not options.json:
            print_blocks(card_blocks(result.outcome), out)
            out.print(f"results {result.folder}", markup=False)
            for name, count in result.other_versions.items():
                note = f"{count} trials of another version of {card.id} are kept in "
                out.print(f"note: {note}{name} and not used", markup=False)
    if options.json:
        print(json.dumps({"studies": results}))
    return 0


def _cards(options: argparse.Namespace) -> list[Card]:
    from striate.workflows.lab.catalogue import all_cards
    from striate.workflows.lab.find_card import find_card

    if options.cards:
        return [find_card(name) for name in options.cards]
    if options.quick or options.full:
        return all_cards()
    what = "no card is given"
    fix = "name one, such as E2, or run all with --quick or --full"
    raise SettingError(what, where="striate lab run", fix=fix)


def _minutes(options: argparse.Namespace) -> float | None:
    if options.minutes is not None:
        minutes: float = options.minutes
        return minutes
    if options.cards:
        return None
    return QUICK_MINUTES if options.quick else FULL_MINUTES


def _study_options(options: argparse.Namespace, minutes: float | None) -> StudyOptions:
    from striate.workflows.lab.study import LAB_FOLDER, StudyOptions

    overrides: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("data", "device")
        if getattr(options, name) is not None
    }
    executor = None
    if options.ray_address:
        from striate.workflows.lab.ray_executor import RayExecutor

        executor = RayExecutor(options.ray_address)
    return StudyOptions(
        minutes=minutes,
        seeds=options.seeds,
        jobs=options.jobs,
        out=options.out or LAB_FOLDER,
        quick=options.quick,
        overrides=overrides,
        executor=executor,
    )
