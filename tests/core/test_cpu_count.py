"""How many processors there are: those that this process may use."""

import os
import sys

import pytest

from striate.core.cpu_count import cpu_count


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_a_process_bound_to_one_processor_has_one() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cpu_count() == len(allowed)


@pytest.mark.parametrize(("said", "count"), [(6, 6), (None, 1)])
def test_elsewhere_the_system_says_it(
    monkeypatch: pytest.MonkeyPatch, said: int | None, count: int
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: said)
    assert cpu_count() == count
