"""While images are read for long, a terminal says how far it is; a log does not."""

import io

import pytest

from striate.run import progress as display


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def test_it_speaks_when_it_takes_long_and_leaves_nothing(clock):
    out = Terminal()
    tick = display.reading_progress(False, out)
    tick(0, 1000)
    assert out.getvalue() == ""
    clock[0] = 5
    tick(640, 1000)
    assert "640 of 1,000" in out.getvalue()
    tick(960, 1000)
    assert out.getvalue().endswith("\r\x1b[K")


def test_logs_and_quiet_runs_are_spared():
    assert display.reading_progress(False, io.StringIO()) is None
    assert display.reading_progress(True, Terminal()) is None
