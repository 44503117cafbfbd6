"""Data of a comparison report."""

from __future__ import annotations

from dataclasses import dataclass

from striate.workflows.compare.groups import RunGroup, SettingDifference
from striate.workflows.compare.pairing import FlippedImage, flipped_images
from striate.workflows.compare.significance import PairwiseTest


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonResult:
    """Groups of compared runs, and tests of their differences."""

    split: str  # `test` or `val`
    # groups of runs: each a single run, or one run per seed
    groups: tuple[RunGroup, ...]
    # tests of every other group against the first group
    tests: tuple[PairwiseTest, ...]
    # settings and environment that differ between the groups
    setting_differences: tuple[SettingDifference, ...]

    def flipped_images(self, test: int = 0) -> tuple[FlippedImage, ...]:
        """Return the images on which one group in a test is correct more often."""
        return flipped_images(self.tests[test].pairings)
