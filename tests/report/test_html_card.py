"""HTML of results in notebooks: no script, and styles that stay inside."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import torch
from torch import nn

import striate as st
from striate.core.findings import Column, Matrix, Prose, Section, Table
from striate.core.notebook import notebook_html
from striate.report.html_card import render_card, scoped_css
from striate.run.scorecard import score_figures
from support.report_pages import Reader


def read(html):
    """Parse a card; check that it runs no script and loads nothing."""
    reader = Reader(html)
    assert not reader.all("script") + reader.all("iframe") + reader.all("dialog")
    assert not reader.all("button")
    assert "://" not in html.replace("http://www.w3.org", "")
    check_styles(html)
    return reader


def check_styles(html):
    """Check that each selector begins with the id of the card."""
    name = re.match(r'<div id="(striate-[0-9a-f]{12})"', html)[1]
    assert html.count(name) > 3
    css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    css = re.sub(r"@media[^{}]*\{", "", css)
    for rule in re.findall(r"([^{}]+)\{[^{}]*\}", css):
        for selector in re.split(r",(?![^()]*\))", rule):
            assert selector.strip().startswith(f"#{name}"), selector


def text_of(html):
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", " ", body).replace("\u00a0", " ")


def test_two_cards_do_not_share_styles():
    cards = [render_card(name, [Section("", (Prose("x"),))]) for name in "ab"]
    names = [re.search(r'id="(striate-\w+)"', card)[1] for card in cards]
    assert names[0] != names[1]
    assert names[0] not in cards[1]
    assert render_card("a", [Section("", (Prose("x"),))]) == cards[0]


def test_only_the_rules_that_are_needed():
    small = render_card("a", [Section("", (Prose("x"),))])
    table = Table(columns=(Column("n", "integer"),), rows=((1,),))
    assert ".matrix" not in small
    assert ".sheet" not in small
    assert ".sheet" in render_card("a", [Section("", (table,))])


def test_rules_in_media_queries_are_restricted():
    css = "@media print { .a { top: 0 } } @media screen { .b { left: 0 } }"
    scoped = scoped_css(css, "#x", '<i class="a c">')
    assert scoped.strip() == "@media print {#x .a{ top: 0 } }"


def test_text_is_escaped():
    html = render_card("<b>", [Section("<i>", (Prose("<script>"),), lead="<u>")])
    read(html)
    assert "&lt;script&gt;" in html


def test_a_matrix_cannot_be_clicked_but_names_its_cells():
    matrix = Matrix(labels=("a", "b"), counts=((3, 1), (0, 4)))
    reader = read(render_card("m", [Section("", (matrix,))]))
    cells = [n for n in reader.all("span") if "--w" in n.attributes.get("style", "")]
    titles = [re.sub("[\u2068\u2069]", "", n.attributes["title"]) for n in cells]
    assert titles[1] == "true a, predicted b: 1 image"
    assert cells[0].attributes["class"] == "cell right"


def test_a_link_is_relative_to_the_notebook(tmp_path):
    folder = tmp_path / "my 사진" / "report.html"
    html = render_card("a", [], {"report": folder})
    assert 'href="my%20%EC%82%AC%EC%A7%84/report.html"' in html


# --- results


def test_a_run(shared_run):
    run = st.load_run(shared_run.path)
    html = run._repr_html_()
    reader = read(html)
    text = text_of(html)
    assert f"{run.path.name}: tutorial_gray on stripes" in text
    assert "test accuracy" in text
    assert "95 % interval" in text
    assert "Confusion matrix (test split)" in text
    links = [n.attributes["href"] for n in reader.all("a")]
    assert links[0].endswith("/run/report.html")


def test_an_unfinished_run(tmp_path, shared_run):
    shutil.copytree(shared_run.path, tmp_path / "begun")
    for path in (tmp_path / "begun").glob("predictions_*"):
        path.unlink()
    html = st.load_run("begun")._repr_html_()
    read(html)
    assert "This run has no results yet" in text_of(html)


def test_metrics(shared_run):
    score = shared_run.predictions("test").metrics()
    html = score._repr_html_()
    read(html)
    text = text_of(html)
    assert f"Metrics of {score.count} images" in text
    assert "calibration error (ECE)" in text
    assert "By class" in text
    assert "split)" not in text
    assert score_figures("", score)[0].label == "accuracy"


def test_many_classes_have_a_table_of_errors(shared_run):
    score = shared_run.predictions("test").metrics()
    many = replace(score, classes=score.classes * 20, confused_pairs=((0, 1, 3),))
    text = text_of(many._repr_html_())
    assert "Most frequent errors" in text
    assert "the 20 with the lowest recall" in text


def test_predictions(shared_run, shared_folder):
    (shared_folder.parent / "text").mkdir(exist_ok=True)
    bad = shared_folder.parent / "text" / "bad.png"
    bad.write_text("no image")
    result = st.predict(st.load_run(shared_run.path), [shared_folder, bad])
    text = text_of(result._repr_html_())
    read(result._repr_html_())
    assert "Predictions of 40 images" in text
    assert "20 more." in text
    assert "1 file not used." in text


def test_a_data_set(shared_folder):
    data = st.load_data(str(shared_folder), fraction=0.5)
    html = data._repr_html_()
    read(html)
    text = text_of(html)
    assert "across" in text
    assert "8×8×1" in text
    assert "outside --fraction" in text
    assert f"{len(data.subset('train'))}" in text


def test_a_data_set_with_many_classes():
    images = np.zeros((300, 4, 4, 1), np.uint8)
    images[..., 0] = np.arange(300)[:, None, None] % 251
    source = st.from_arrays("many", images, [f"c{i % 30}" for i in range(300)])
    html = st.load_data(source)._repr_html_()
    assert "10 more; 30 classes in total." in text_of(html)


def test_a_summary():
    html = st.summary(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 8, 8))._repr_html_()
    read(html)
    assert "Image size" in text_of(html)


def test_a_comparison(shared_run):
    other = shutil.copytree(shared_run.path, "other")
    html = st.compare(shared_run, other)._repr_html_()
    read(html)
    assert "accuracy" in text_of(html)


def test_a_heatmap():
    tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), *tail)
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    for sanity_checks in (True, False):
        result = st.explain(
            model, x, target=1, labels=["cat", "dog"], sanity_checks=sanity_checks
        )
        html = result._repr_html_()
        read(html)
        assert "data:image/png;base64," in html
        assert ("How reliable" in text_of(html)) is sanity_checks


def test_a_data_check(shared_folder):
    html = st.check_data(shared_folder)._repr_html_()
    read(html)
    assert "data check" in text_of(html)


def test_an_operating_point(shared_run):
    html = st.operating_point(shared_run, "down")._repr_html_()
    read(html)
    assert "operating point of down" in text_of(html)


def test_other_results_have_no_html():
    assert notebook_html(3) is None


CARDS = """
import os, sys, torch
for name in sys.argv[1:]:
    process = os.fork()
    if process:
        os.waitpid(process, 0)
        continue
    import striate as st
    getattr(st, name)
    from striate.core.notebook import notebook_html
    print(name, len(notebook_html.registry), flush=True)
    os._exit(0)
"""


def test_the_card_comes_with_the_public_name():
    """Each in a new process, where no test has imported the card; torch is shared."""
    names = ["load_data", "Run", "check_data", "learning_curve"]
    command = [sys.executable, "-c", CARDS, *names]
    done = subprocess.run(command, capture_output=True, text=True)
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert list(counts) == names, done.stderr
    assert all(int(count) > 1 for count in counts.values()), counts
