"""What a terminal shows: names as names, bars for people, plain lines for logs."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from striate.core.findings import Column, Images, Matrix, Prose, Series, Table
from striate.report.progress import Throughput, TrainingProgress, remaining_text
from striate.report.terminal import print_blocks, sparkline
from support.report_pages import curve, full_page, image, line


def printed(*blocks, width=100, color=False):
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=color)
    print_blocks(blocks, console)
    return stream.getvalue()


def test_every_block_prints():
    for section in full_page("name").sections:
        text = printed(*section.blocks)
        assert text.count("name") > 10


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=20))
def test_names_never_reach_the_terminal_as_commands(name):
    text = printed(*full_page(f"{name}[red]\x1b[2J[/]").sections[0].blocks)
    assert "\x1b" not in text
    assert "[red]" in text
    text.encode("utf-8")


def test_a_sparkline_rises_and_falls_with_its_values():
    spark = sparkline(Series(name="", x=(0,) * 5, y=(0, 1, float("nan"), 1, 0)))
    assert spark == "▁█ █▁"
    assert sparkline(line()) == ""
    assert len(set(sparkline(line(2.0, 2.0, 2.0)))) == 1
    assert len(sparkline(line(*range(5000)))) == 40
    assert sparkline(line(1.0, 10.0, 100.0), log=True) in {"▁▄█", "▁▅█"}


def test_a_curve_says_its_range_or_the_value_at_the_mark():
    text = printed(curve(line(0.5, 0.75, 0.9), percent_y=True))
    assert "50.00 % to 90.00 %" in text
    mark = (1, "best epoch: 1")
    text = printed(curve(line(0.5, 0.75, 0.6), percent_y=True, mark=mark))
    assert "75.00 % (best epoch: 1)" in text
    assert "60.00 %" not in text


def test_a_small_matrix_is_shown_whole_and_a_large_one_by_its_worst_errors():
    small = Matrix(labels=("cat", "dog"), counts=((1200, 1), (0, 7)))
    text = printed(small)
    assert "1,200" in text
    assert "·" in text
    counts = [[0] * 50 for _ in range(50)]
    counts[4][9], counts[0][0] = 17, 83
    labels = tuple(f"n{i}" for i in range(50))
    text = printed(Matrix(labels=labels, counts=tuple(map(tuple, counts))))
    assert "83 of 100 correct (83.0 %)" in text
    assert "n4 predicted as n9" in text


def test_class_names_in_brackets_are_no_markup():
    text = printed(Matrix(labels=("[red]", "[/]"), counts=((1, 0), (0, 2))))
    assert text.count("[red]") == text.count("[/]") == 2


def test_a_table_shows_totals_and_empty_cells():
    columns = (Column(title="layer", kind="code"), Column(title="n", kind="integer"))
    rows = (("conv1", 1792), ("pool1", None))
    text = printed(Table(columns=columns, rows=rows, totals=("total", 1792)))
    assert text.count("1,792") == 2
    assert "None" not in text


def test_images_list_captions_up_to_a_limit():
    images = tuple(image(caption=f"c{i}") for i in range(20))
    text = printed(Images(images=images), width=200)
    assert "20 images: c0, " in text
    assert "and 8 more" in text


def test_tones_have_a_sign_of_their_own():
    signs = {printed(Prose(text="x", tone=t))[0] for t in ("good", "warning", "bad")}
    assert len(signs | {"x"}) == 4


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Time that passes only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def train(progress, epochs=3):
    accuracies = [0.9, 0.8, 0.95]
    with progress:
        progress.start(epochs=epochs, steps=10, images=320)
        for epoch in range(1, epochs + 1):
            for step in range(1, 11):
                progress.step(epoch, step, 0.5, 32 * step)
            row = {"epoch": epoch, "train_loss": 0.5, "val_loss": 0.6}
            accuracy = accuracies[epoch - 1]
            best = accuracy == max(accuracies[:epoch])
            progress.epoch({**row, "val_accuracy": accuracy, "best": best})


def test_a_log_file_gets_one_plain_line_an_epoch():
    stream = io.StringIO()
    train(TrainingProgress(stream=stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == (
        "epoch 1/3  train loss 0.5000  val loss 0.6000  val accuracy 90.00 %  best"
    )
    assert [line.endswith("best") for line in lines] == [True, False, True]
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_quiet_prints_nothing(capsys):
    train(TrainingProgress(quiet=True))
    train(TrainingProgress(stream=(terminal := Terminal()), quiet=True))
    assert capsys.readouterr() == ("", "")
    assert terminal.getvalue() == ""


def test_results_on_stdout_stay_clean(capsys):
    train(TrainingProgress())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("epoch") == 3


def test_a_terminal_gets_a_bar_with_speed_and_time_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal, clock = Terminal(), Clock()
    with TrainingProgress(stream=terminal, clock=clock) as progress:
        progress.start(epochs=2, steps=100, images=3200)
        for step in range(1, 51):
            clock.now += 0.2
            progress.step(1, step, 0.25, 32 * step)
    text = terminal.getvalue()
    assert "\x1b" in text
    assert "epoch 1/2 · loss 0.25 · 160 images/s · 30 s left" in text


def test_redraws_are_rare(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal, clock = Terminal(), Clock()
    with TrainingProgress(stream=terminal, clock=clock) as progress:
        progress.start(epochs=1, steps=10_000, images=10_000)
        before = terminal.getvalue().count("loss")
        for step in range(10_000):  # one second of training
            clock.now += 1e-4
            progress.step(1, step, 0.5, step)
        assert terminal.getvalue().count("loss") - before <= 11


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    train(TrainingProgress(stream=terminal))
    assert "\x1b" not in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 3


def test_an_error_takes_the_bar_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    progress = TrainingProgress(stream=terminal)
    progress.start(epochs=1, steps=1, images=1)
    with pytest.raises(ValueError, match="stop"), progress:
        raise ValueError("stop")
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back
    assert terminal.getvalue().endswith("\x1b[2K")  # and the line is empty


def test_throughput_after_a_restart():
    rate = Throughput()
    for now, steps, images in [(0, 0, 0), (1, 10, 320), (2, 20, 32), (3, 30, 352)]:
        rate.update(float(now), steps, images)
    assert rate.steps == 10
    assert rate.images == 320


def test_times_read_like_a_watch():
    said = [remaining_text(s) for s in (0, 59.9, 60, 3599, 3600)]
    assert said == ["0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min"]
