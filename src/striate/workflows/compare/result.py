"""Facts of a comparison, before rendering."""

from __future__ import annotations

from dataclasses import dataclass

from striate.workflows.compare.groups import RunGroup, SettingDifference
from striate.workflows.compare.pairing import FlippedImage, flipped_images
from striate.workflows.compare.significance import PairwiseTest


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonResult:
    """Runs side by side, and the tests of their differences.

    Args:
        split: `test` or `val`.
        groups: A run each, or a setting with one run per seed.
        tests: Every other group against the first.
        setting_differences: Settings and environment that differ between the groups.
    """

    split: str
    groups: tuple[RunGroup, ...]
    tests: tuple[PairwiseTest, ...]
    setting_differences: tuple[SettingDifference, ...]

    def flipped_images(self, test: int = 0) -> tuple[FlippedImage, ...]:
        """Return the images that only one side of a test classifies correctly."""
        return flipped_images(self.tests[test].pairings)
