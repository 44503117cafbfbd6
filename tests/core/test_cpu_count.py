"""Number of CPU cores available to the process."""

import os
import sys

import pytest

from striate.core.cpu_count import cpu_count


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_cpu_count_follows_the_affinity() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cpu_count() == len(allowed)


@pytest.mark.parametrize(("said", "count"), [(6, 6), (None, 1)])
def test_cpu_count_on_other_systems(
    monkeypatch: pytest.MonkeyPatch, said: int | None, count: int
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: said)
    assert cpu_count() == count
