"""A trial: one arm of a card, trained and measured with one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from striate.core.derive_seed import derive_seed


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One arm with one seed, and all its settings.

    A trial has only plain values, so that another process or machine can run it.
    """

    card: str  # id of a card of the catalogue, or the text of a study file
    arm: str
    seed: int
    settings: Mapping[str, Any]  # all settings of the arm, with the profile's changes

    @property
    def name(self) -> str:
        """Return the name of the trial's file, such as `max-seed-3`."""
        return f"{self.arm}-seed-{self.seed}"

    def stream(self, purpose: str) -> int:
        """Return the seed of a stream of random numbers; it is the same in all arms."""
        return derive_seed(self.seed, "lab", purpose)
