"""The lab in Python: `st.lab.run("E2")`, `st.lab.report()`, `st.lab.cards()`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from striate.workflows.lab.card import Card
from striate.workflows.lab.catalogue import all_cards
from striate.workflows.lab.find_card import find_card
from striate.workflows.lab.study import (
    LAB_FOLDER,
    StudyOptions,
    StudyProgress,
    StudyResult,
    run_study,
)


class Lab:
    """Claims about convolutional networks, as experiments to run again."""

    def cards(self) -> list[Card]:
        """Return all cards."""
        return all_cards()

    def run(
        self,
        card: str | Path,
        *,
        minutes: float | None = None,
        seeds: int | None = None,
        jobs: int | None = None,
        out: str | Path = LAB_FOLDER,
        quick: bool = False,
        on_progress: Callable[[StudyProgress], None] = lambda progress: None,
        **settings: Any,
    ) -> StudyResult:
        """Run a card or a study file until it is decided, or until the budget ends.

        Args:
            card: Id of a card, such as `"E2"`, or the path of a study file.
            minutes: Longest time in minutes.
            seeds: Largest number of seeds.
            jobs: Number of processes (default: one for each core).
            out: Folder of the results; finished trials are read from it.
            quick: Use the small settings of the card and three seeds.
            on_progress: Called after each trial.
            settings: Changed settings of all arms, such as `data="photos"`.

        Raises:
            StriateError: There is no such card, or a setting is invalid.
        """
        options = StudyOptions(
            minutes=minutes,
            seeds=seeds,
            jobs=jobs,
            out=Path(out),
            quick=quick,
            overrides=settings,
        )
        return run_study(find_card(str(card)), options, on_progress)


lab = Lab()
