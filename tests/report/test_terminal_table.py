"""Tables in a terminal: what is dropped first, and no word is broken."""

import numpy as np
import pytest

from striate.core.findings import Column, Table
from striate.metrics.classification import classification_metrics
from striate.report.format import cell_text, probability_text
from striate.report.terminal import blocks_text
from striate.run.scorecard import per_class_table

PATH = "photos/2024/golden_retriever/IMG_20240611_103344.jpg"


def sheet(*rows, kinds=("", ""), titles=("name", "description"), ranks=(0, 0)):
    columns = tuple(
        Column(title, kind, rank=rank)
        for title, kind, rank in zip(titles, kinds, ranks, strict=True)
    )
    return Table(columns=columns, rows=rows)


def scored():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])
    truth, names = np.array([0, 1, 1, 1]), ("airplane", "bird")
    return classification_metrics(probs, truth, np.zeros(4), names)


def test_f1_is_shown_at_80_columns():
    text = blocks_text([per_class_table(scored())], width=80)
    head = text.splitlines()[1]
    assert head.split()[-1] == "F1"
    assert "Hidden columns" not in text
    assert "80.0 %" in text  # F1 of bird
    assert max(map(len, text.splitlines())) <= 80


def test_bars_are_dropped_before_columns():
    table = per_class_table(scored())
    assert "█" in blocks_text([table], width=120)
    narrow = blocks_text([table], width=80)
    assert "█" not in narrow
    assert "recall" in narrow
    narrower = blocks_text([table], width=66)
    assert "Hidden columns (terminal too narrow): 95 % interval." in narrower
    assert "F1" in narrower.splitlines()[1]


@pytest.mark.parametrize("width", [30, 44, 60, 79])
def test_words_never_break(width):
    words = "a small network with residual connections for gray images"
    rows = (("residual_network_with_bottlenecks", words), ("lenet5", words))
    text = blocks_text([sheet(*rows)], width=width)
    for word in {*words.split(), "residual_network_with_bottlenecks", "lenet5"}:
        assert word in text.replace("\n", " ").split()


@pytest.mark.parametrize("width", [20, 40, 70])
def test_a_path_longer_than_the_terminal_stays_whole(width):
    kinds = "", "integer"
    table = sheet((PATH, 12), (PATH, 7), kinds=kinds, titles=("image", "n"))
    assert blocks_text([table], width=width).split().count(PATH) == 2


def test_numbers_and_percent_signs_stay_together_when_cells_wrap():
    rows = (("a long description of the setting in words", 0.25),)
    table = sheet(*rows, kinds=("", "percent"), titles=("text", "share of all"))
    text = blocks_text([table], width=30)
    assert "25.0 %" in text
    assert max(map(len, text.splitlines())) <= 30


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9995, ">99.9 %"),
        (0.99999, ">99.9 %"),
        (0.9994, "99.9 %"),
        (1.0, "100.0 %"),
        (0.0004, "<0.1 %"),
        (0.0005, "0.1 %"),
        (float("nan"), "NaN"),
    ],
)
def test_a_probability_below_1_is_never_100_percent(value, text):
    assert probability_text(value) == cell_text(value, "probability") == text
