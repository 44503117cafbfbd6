"""Results of trials: one file each, in a folder for each version of a card."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from striate.core.errors import RunError
from striate.core.files import read_json, write_json, write_text
from striate.workflows.lab.card import Card
from striate.workflows.lab.trial import Trial

CARD_FILE = "card.json"
TABLE_FILE = "results.csv"
TRIALS = "trials"
HASH_LENGTH = 12  # hex digits in a folder's name


def definition(card: Card, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that the results of a card depend on, as JSON values.

    These are the settings, the arms, the rules with their margins, and the code of the
    card without comments and docstrings. Another margin is another version: a margin
    that is chosen after the results is worth nothing.
    """
    return {
        "id": card.id,
        "arms": {
            arm.name: card.trial_settings(arm.name, overrides) for arm in card.arms
        },
        "rules": {c.title: asdict(c.rule) for c in card.comparisons},
        "code": _code_hash(card),
        "striate": version("striate"),
    }


def _code_hash(card: Card) -> str:
    """Return a hash of the modules that measure, without comments and docstrings."""
    modules = {card.measure.__module__}
    functions: list[Any] = [arm.network for arm in card.arms if arm.network is not None]
    functions += [comparison.effect for comparison in card.comparisons]
    modules |= {getattr(f, "func", f).__module__ for f in functions}  # of a partial
    digest = hashlib.sha256()
    for name in sorted(modules):
        with suppress(OSError, KeyError):
            digest.update(code_lines(inspect.getsource(sys.modules[name])).encode())
    return digest.hexdigest()[:HASH_LENGTH]


def code_lines(source: str) -> str:
    r"""Return the lines of a module that are neither docstring, comment nor empty.

    Example:
        >>> code_lines("'text'\n\n# note\nx = 1\n")
        'x = 1'
    """
    lines: list[str] = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            for number in range(first.lineno - 1, first.end_lineno or first.lineno):
                lines[number] = ""
    code = (line for line in lines if line.strip() and line.strip()[0] != "#")
    return "\n".join(code)


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """Measurements of a finished trial, and what they took."""

    arm: str
    seed: int
    measurements: Mapping[str, Any]
    seconds: float  # processor time
    machine: str = ""  # processor and version of torch
    date: str = ""  # day on which the trial ended, such as 2026-12-01


class ResultStore:
    """Folder with the results of one version of a card.

    Args:
        root: Folder of all cards, such as `runs/lab`.
        card: The card.
        overrides: Changed settings, which are a version of their own.
    """

    def __init__(self, root: Path, card: Card, overrides: Mapping[str, Any]) -> None:
        self.card = card
        self.overrides = dict(overrides)
        self.definition = definition(card, overrides)
        text = json.dumps(self.definition, sort_keys=True)
        self.hash = hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]
        self.card_folder = root / card.id
        self.folder = self.card_folder / self.hash

    def create(self) -> None:
        """Create the folder, with the definition of the card."""
        path = self.folder / CARD_FILE
        if not path.exists():
            write_json(path, self.definition)

    def trial(self, arm: str, seed: int) -> Trial:
        """Return the trial of an arm with a seed."""
        settings = self.card.trial_settings(arm, self.overrides)
        return Trial(card=self.card.reference, arm=arm, seed=seed, settings=settings)

    def _path(self, arm: str, seed: int) -> Path:
        return self.folder / TRIALS / f"{arm}-seed-{seed}.json"

    def is_finished(self, trial: Trial) -> bool:
        """Return whether a trial has a result."""
        return self._path(trial.arm, trial.seed).is_file()

    def save(self, result: TrialResult) -> None:
        """Write the result of a trial; a finished trial is never replaced."""
        path = self._path(result.arm, result.seed)
        if not path.exists():
            write_json(path, asdict(result))

    def results(self) -> list[TrialResult]:
        """Return all results, in the order of seeds and arms.

        Raises:
            RunError: A file is damaged; it names the file.
        """
        order = {arm.name: i for i, arm in enumerate(self.card.arms)}
        results = [_read_result(path) for path in self.folder.glob(f"{TRIALS}/*.json")]
        known = [result for result in results if result.arm in order]
        return sorted(known, key=lambda result: (result.seed, order[result.arm]))

    def other_versions(self) -> dict[str, int]:
        """Return the number of finished trials of other versions, by folder name."""
        folders = sorted(self.card_folder.glob(f"*/{CARD_FILE}"))
        counts = {
            path.parent.name: len(list(path.parent.glob(f"{TRIALS}/*.json")))
            for path in folders
        }
        return {name: n for name, n in counts.items() if n and name != self.hash}

    def write_table(self) -> Path:
        """Write `results.csv`: a row for each trial, a column for each number.

        The table has no times and no names of machines. It is the same to the byte if
        the trials were interrupted, moved, or run on a cluster.
        """
        path = self.folder / TABLE_FILE
        write_text(path, results_table(self.results()))
        return path


def _read_result(path: Path) -> TrialResult:
    value = read_json(path)
    try:
        return TrialResult(**value)
    except TypeError as error:
        what = f"{path.name} is not the result of a trial"
        fix = "delete the file; the trial is run again"
        raise RunError(what, where=path, fix=fix) from error


def results_table(results: Sequence[TrialResult]) -> str:
    """Return the results as CSV: seed, arm, and each number that was measured."""
    names = sorted(
        {
            name
            for result in results
            for name, value in result.measurements.items()
            if not isinstance(value, list | dict)
        }
    )
    lines = [",".join(["seed", "arm", *names])]
    for result in results:
        cells = [repr(result.measurements.get(name, "")).strip("'") for name in names]
        lines.append(",".join([str(result.seed), result.arm, *cells]))
    return "\n".join(lines) + "\n"
