"""Write a dated result file: results, the command that was run, and the machine."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def mean_deviation(values: Sequence[float]) -> str:
    """Return mean ± standard deviation in percent as text.

    Example:
        >>> mean_deviation([0.99, 0.98])
        '98.50 ± 0.71 %'
    """
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.2f} ± {100 * spread:.2f} %"


def machine() -> str:
    """Return a one-line description of the machine."""
    processor = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    threads = torch.get_num_threads()
    kernel = torch.backends.cpu.get_cpu_capability()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return (
        f"{processor}, {os.cpu_count()} cores, {threads} threads, {kernel}; {versions}"
    )


def save(theme: str, title: str, body: str) -> Path:
    """Write `results/<theme>_<machine>_<date>.md` and return the path."""
    today = datetime.now(UTC).date().isoformat()
    label = f"{os.cpu_count()}core-{torch.backends.cpu.get_cpu_capability().lower()}"
    path = RESULTS / f"{theme}_{label}_{today}.md"
    command = " ".join(["python", *sys.argv])
    head = f"# {title}\n\n{today} · `{command}` · {machine()}\n\n"
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + body.rstrip() + "\n", encoding="utf-8")
    print(f"\n{path}")
    return path
