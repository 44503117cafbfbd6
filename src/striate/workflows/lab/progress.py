"""Progress of a study on stderr: a bar in a terminal, one line per trial elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from striate.core.format import duration_text
from striate.workflows.lab.study import StudyProgress

OnProgress = Callable[[StudyProgress], None]


@contextmanager
def study_progress(quiet: bool) -> Iterator[OnProgress]:
    """Context manager: yields the callback of `run_study` that shows its progress."""
    out = Console(file=sys.stderr)
    if quiet:
        yield lambda progress: None
    elif not out.is_terminal:
        yield lambda progress: print(_line(progress), file=sys.stderr, flush=True)
    else:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=out,
        ) as bar:
            task = bar.add_task("", total=None, left="")

            def show(progress: StudyProgress) -> None:
                bar.update(
                    task,
                    description=f"{progress.card.id} {progress.arm}",
                    completed=progress.finished,
                    total=progress.planned,
                    left=f"{duration_text(progress.seconds_left)} left",
                )

            yield show


def _line(progress: StudyProgress) -> str:
    return (
        f"{progress.card.id}  {progress.finished} of {progress.planned} trials: "
        f"{progress.arm}, seed {progress.seed}; about "
        f"{duration_text(progress.seconds_left)} left"
    )
