"""Progress of reading: shown in a terminal after a delay, not in a log."""

import io

import pytest

from striate.run import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_progress_is_shown_after_a_delay_and_removed(clock):
    out = Terminal()
    tick = progress.reading_progress(False, out)
    tick(0, 1000)
    assert out.getvalue() == ""
    clock[0] = 5
    tick(640, 1000)
    assert "640 of 1,000" in out.getvalue()
    tick(960, 1000)
    assert out.getvalue().endswith("\r\x1b[K")


def test_no_progress_in_logs_and_quiet_runs():
    assert progress.reading_progress(False, io.StringIO()) is None
    assert progress.reading_progress(True, Terminal()) is None
