"""Compare runs, and test their difference in accuracy on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from striate.core.findings import Block, Page
from striate.report.html_card import render_card
from striate.report.terminal import blocks_text
from striate.run.run import Run
from striate.workflows.compare.as_json import comparison_dict
from striate.workflows.compare.evaluated_run import evaluated_runs
from striate.workflows.compare.findings import comparison_blocks, comparison_page
from striate.workflows.compare.groups import group_runs, setting_differences
from striate.workflows.compare.result import ComparisonResult
from striate.workflows.compare.significance import pairwise_tests

MAX_SECTIONS = 3  # sections of the report that a notebook shows


class Comparison(ComparisonResult):
    """Result of comparing runs, with fields and a printable report."""

    @property
    def blocks(self) -> list[Block]:
        """Return the blocks of the terminal report."""
        return comparison_blocks(self)

    @property
    def page(self) -> Page:
        """Return the full HTML report, with images."""
        return comparison_page(self)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as a JSON-serializable dict."""
        return comparison_dict(self)

    def __str__(self) -> str:
        return blocks_text(self.blocks)

    def _repr_html_(self) -> str:
        # The first sections: the conclusion, the runs, and the results.
        page = self.page
        return render_card(page.title, page.sections[:MAX_SECTIONS])


def compare(*runs: Run | str | Path, split: str | None = None) -> Comparison:
    """Compare runs, and test the difference in accuracy on their common images.

    Each other run is compared with the first run. Single runs are tested on the same
    images: McNemar's exact test, with Tango's interval of the difference. Runs that
    differ only in their seed form one group, and the groups are tested over seeds.
    With several tests, the p-values are corrected (Holm).

    Args:
        runs: `Run`s, folders, or names below `runs/train`.
        split: `test` or `val`. Default: test if all runs evaluated it, else val.

    Raises:
        SettingError: Fewer than two runs are given, or a run is given twice.
        RunError: A run is missing or unfinished, or the runs have different classes.
    """
    evaluated = evaluated_runs(runs, split)
    groups = group_runs(evaluated)
    return Comparison(
        split=evaluated[0].split,
        groups=groups,
        tests=pairwise_tests(groups),
        setting_differences=setting_differences(groups),
    )
