"""`compare`: runs side by side, tested on the images that they have in common."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate.core.findings import Block, Page
from striate.run.run import Run, score_dict
from striate.workflows.compare.evaluated_run import Contender, contenders
from striate.workflows.compare.findings import page_of, terminal_blocks
from striate.workflows.compare.groups import Differing, Side, differing, sides
from striate.workflows.compare.pairing import Flip, Pairing, flips
from striate.workflows.compare.significance import Match, matches
from striate.workflows.compare.verdict import remarks

WIDTH = 100  # of `print(st.compare(...))`


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Runs side by side; print it, or ask it.

    Args:
        split: `test` or `val`.
        sides: A run each, or a setting with a run for each of several seeds.
        matches: Every other side against the first.
        differing: Settings and circumstances that are not the same on all sides.
    """

    split: str
    sides: tuple[Side, ...]
    matches: tuple[Match, ...]
    differing: tuple[Differing, ...]

    def flips(self, match: int = 0) -> tuple[Flip, ...]:
        """Return the images that changed sides in a match, the plainest first."""
        return flips(self.matches[match].pairings)

    @property
    def blocks(self) -> list[Block]:
        """Everything that fits a terminal, as findings."""
        return terminal_blocks(self)

    @property
    def page(self) -> Page:
        """Everything, the flipped images with it, as a report."""
        return page_of(self)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "split": self.split,
            "sides": [_side(side) for side in self.sides],
            "differing": [asdict(one) for one in self.differing],
            "matches": [_match(match) for match in self.matches],
            "remarks": [
                prose.text for prose in remarks(self.sides, self.matches, self.split)
            ],
        }

    def __str__(self) -> str:
        from rich.console import Console

        from striate.report.terminal import show

        paper = io.StringIO()
        console = Console(file=paper, width=WIDTH, highlight=False, color_system=None)
        show(self.blocks, console)
        return "\n".join(line.rstrip() for line in paper.getvalue().splitlines())


def compare(*runs: Run | str | Path, split: str | None = None) -> Comparison:
    """Lay runs side by side and test their difference on the images they share.

    The first run is what the others are compared with. Single runs are tested on the
    same images: McNemar's exact test, with Tango's interval of the difference. Runs
    that differ in nothing but the seed are united, and settings are tested over seeds.
    Among more than one difference, p-values are Holm's.

    Args:
        runs: `Run`s, folders, or names below `runs/train`.
        split: `test` or `val`; the test split where all judged it, else validation.

    Raises:
        SettingError: Fewer than two runs, or one of them twice.
        RunError: A run is missing or unfinished, or their classes differ.
    """
    compared = sides(found := contenders(runs, split))
    return Comparison(
        split=found[0].split,
        sides=compared,
        matches=matches(compared),
        differing=differing(compared),
    )


def _side(side: Side) -> dict[str, Any]:
    return {
        "letter": side.letter,
        "runs": [_run(run) for run in side.runs],
        "repeats": [str(run.run.path) for run in side.repeats],
    }


def _run(run: Contender) -> dict[str, Any]:
    facts = run.facts
    asked = ("parameters", "seconds", "images_per_second", "best_epoch", "epochs")
    return {
        "run": str(run.run.path),
        "seed": run.seed,
        "score": score_dict(run.score),
        "macs": run.macs,
        **{name: facts.get(name) for name in asked},
    }


def _match(match: Match) -> dict[str, Any]:
    return {
        "first": match.first.letter,
        "second": match.second.letter,
        "how": match.how,
        "difference": match.difference,
        "interval": match.interval,
        "p": match.p,
        "p_corrected": match.corrected,
        "overlap": match.overlap,
        "pairings": [_pairing(pairing) for pairing in match.pairings],
        "flips": [_flip(flip) for flip in flips(match.pairings)],
    }


def _pairing(pairing: Pairing) -> dict[str, Any]:
    balanced, loss = pairing.balanced, pairing.loss
    return {
        "runs": [str(pairing.first.run.path), str(pairing.second.run.path)],
        "images": pairing.count,
        "left_out": pairing.left_out,
        "relabeled": pairing.relabeled,
        **_counts(pairing),
        "balanced_accuracy": {"difference": balanced[0], "interval": balanced[1]},
        "loss": {"difference": loss[0], "interval": loss[1]},
        "classes": {
            name: {**asdict(one), "difference": one.difference, "p": one.p_value}
            for name, one in pairing.classes
        },
    }


def _counts(pairing: Pairing) -> dict[str, Any]:
    paired = pairing.paired
    found = {"difference": paired.difference, "interval": paired.interval}
    return {**asdict(paired), **found, "p": paired.p_value}


def _flip(flip: Flip) -> dict[str, Any]:
    return {
        "path": flip.path,
        "label": flip.label,
        "said": flip.said,
        "sure": flip.sure,
        "right": flip.right,
        "times": flip.times,
    }
