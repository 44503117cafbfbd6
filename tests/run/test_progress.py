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


def test_a_log_has_one_forecast_for_the_features_of_a_backbone(clock):
    out = io.StringIO()
    tick = progress.features_progress(False, out)
    for seconds, count in ((1, 40), (4, 160), (8, 320), (25, 1000)):
        clock[0] = seconds
        tick(count, 1000)
    line = "forecast: about 25.0 s for the features of 1,000 images\n"
    assert out.getvalue() == line


@pytest.mark.parametrize(("seconds", "count"), [(4, 900), (2, 1000)])
def test_features_that_are_nearly_done_have_no_forecast(clock, seconds, count):
    out = io.StringIO()
    tick = progress.features_progress(False, out)
    clock[0] = seconds
    tick(count, 1000)
    clock[0] = 60
    tick(1000, 1000)
    assert out.getvalue() == ""


def test_a_terminal_shows_the_seconds_left_of_the_features(clock):
    out = Terminal()
    tick = progress.features_progress(False, out)
    clock[0] = 2
    tick(200, 1000)
    assert out.getvalue() == "\rfeatures: 200 of 1,000 images, 8 s left\x1b[K"
    tick(1000, 1000)
    assert out.getvalue().endswith("\r\x1b[K")
    assert progress.features_progress(True, out) is None
