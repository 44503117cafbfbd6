"""The page is one safe, offline, accessible file, whatever the names are."""

import base64
import hashlib
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from striate.core.files import write_text
from striate.core.findings import Column, Curve, Images, Matrix, Page, Prose, Table
from striate.report.html import render_page
from support.report_pages import Reader, embedded, full_page, image, page

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</title></svg></dialog>",
    '" onload="alert(1)',
    "' onfocus='alert(1)",
    "<!-- ",
    "]]><![CDATA[",
    "&lt;b&gt; &amp;quot;",
    "line\nbreak\ttab",
    "caf\udce9.png",
    "\ud83d lone",
    "\x00\x1b[31m",
    "\u202eright to left",
    "שלום",
    "",
    " ",
    "javascript:alert(1)",
    "url(https://example.org/x.png)",
]


# Elements of texts: prose that is only white space has no paragraph, and each line of
# an image's detail is an element.
TEXT = {"p", "bdi", "b", "div", "small"}


def harmless_shape():
    return Reader(render_page(full_page("plain"))).shape()


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_changes_the_structure_of_the_page(name):
    shape = Reader(render_page(full_page(name or "plain"))).shape()
    kept = [element for element in shape if element[0] not in TEXT]
    same = [e for e in harmless_shape() if e[0] not in TEXT]
    assert kept == same


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), min_size=1, max_size=30))
@example("'\"><img src=x onerror=alert(1)>")
def test_any_text_leaves_elements_and_attributes_as_they_are(name):
    reader = Reader(render_page(full_page(f"a{name}z")))
    tags = {"script", "style", "img", "iframe", "svg", "button", "dialog", "a", "i"}
    plain = [element for element in harmless_shape() if element[0] in tags]
    assert [element for element in reader.shape() if element[0] in tags] == plain
    assert not [k for n in reader.nodes for k in n.attributes if k.startswith("on")]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_page_can_be_written_as_utf8(name, tmp_path):
    text = render_page(full_page(name))
    text.encode("utf-8")  # strictly: no surrogate is left
    write_text(tmp_path / "page.html", text)
    assert (tmp_path / "page.html").read_text("utf-8") == text
    assert not set(text) & {"\x00", "\x1b"}


def test_a_name_reads_as_it_was_given():
    reader = Reader(render_page(full_page("<b>7 & 'up'</b>")))
    assert "<b>7 & 'up'</b>" in reader.all("h1")[0].text
    assert any("<b>7 & 'up'</b>" in node.text for node in reader.all("td"))


def test_every_address_is_inside_the_file():
    text = render_page(full_page("https://example.org/a.js"))
    reader = Reader(text)
    fetching = ("src", "href", "action", "poster", "srcset", "data", "xlink:href")
    for node in reader.nodes:
        for key in fetching:
            assert (node.attributes.get(key) or "#").startswith(("#", "data:"))
    assert not reader.all("link")
    styles = "".join(reader.all("style")[0].text)
    assert all(url.startswith("data:") for url in re.findall(r"url\((.*?)\)", styles))
    assert "@import" not in styles
    assert "://" not in styles + "".join(reader.all("script")[0].text)


def test_the_policy_forbids_everything_but_our_own_script():
    reader = Reader(render_page(full_page("x")))
    policy = next(n for n in reader.all("meta") if "http-equiv" in n.attributes)
    content = policy.attributes["content"]
    (script,) = reader.all("script")
    digest = hashlib.sha256("".join(script.text).encode()).digest()
    assert f"'sha256-{base64.b64encode(digest).decode()}'" in content
    assert content.startswith("default-src 'none'")
    assert "script-src 'unsafe-inline'" not in content
    # It must come before what it governs.
    tags = [node.tag for node in reader.nodes]
    assert reader.nodes.index(policy) < min(tags.index("style"), tags.index("script"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=8))
def test_each_distinct_image_is_embedded_once(contents):
    images = tuple(image(content) for content in contents)
    counts = ((0, len(images)), (0, 1))
    matrix = Matrix(labels=("a", "b"), counts=counts, images={(0, 1): images})
    text = render_page(page(Images(images=images), Images(images=images), matrix))
    assert sorted(embedded(text)) == sorted(set(contents))
    shown = [n for n in Reader(text).all("span") if n.attributes.get("role") == "img"]
    assert len(shown) == 3 * len(contents)


def test_spans_of_a_image_share_its_rule():
    one, other = image(b"one"), image(b"other")
    text = render_page(page(Images(images=(one, other, one))))
    spans = [n for n in Reader(text).all("span") if n.attributes.get("role") == "img"]
    first, second, third = (span.attributes["class"].split()[1] for span in spans)
    assert first == third != second
    rule = f".{second}{{background-image:url(data:image/png;base64,"
    assert rule + base64.b64encode(b"other").decode() in text


def test_images_grow_by_whole_pixels_and_say_what_they_show():
    shot = image(caption="a seven")
    reader = Reader(render_page(page(Images(images=(shot,), scale=3))))
    span = next(n for n in reader.all("span") if n.attributes.get("role") == "img")
    assert "width:24px" in span.attributes["style"]
    assert "crisp" in span.attributes["class"]
    assert span.attributes["aria-label"] == "a seven"


def confusion(size: int) -> Matrix:
    counts = [
        [100 if r == c else (r * c) % 3 for c in range(size)] for r in range(size)
    ]
    labels = tuple(f"class {i}" for i in range(size))
    return Matrix(labels=labels, counts=tuple(map(tuple, counts)))


@pytest.mark.parametrize("size", [0, 1, 2, 5, 6, 12, 13, 30, 31, 100])
def test_every_cell_that_counted_opens_its_own_dialog(size):
    matrix = confusion(size)
    reader = Reader(render_page(page(matrix)))
    counted = sum(bool(n) for row in matrix.counts for n in row)
    dialogs = [node.attributes["id"] for node in reader.all("dialog")]
    assert len(dialogs) == len(set(dialogs)) == counted
    cells = [n for n in reader.all("button") if "--w" in n.attributes.get("style", "")]
    assert sorted(n.attributes["commandfor"] for n in cells) == sorted(dialogs)
    assert {n.attributes["command"] for n in cells} <= {"show-modal"}


def test_a_cell_says_what_it_counted_and_how_many_images_are_held():
    held = tuple(image(bytes([i])) for i in range(12))
    matrix = Matrix(
        labels=("3", "5"),
        counts=((7, 40), (2, 9)),
        images={(0, 1): held, (1, 0): held[:2]},
    )
    reader = Reader(render_page(page(matrix)))
    labels = {n.attributes.get("aria-label") for n in reader.all("button")}
    assert "true 3, predicted 5: 40 images" in labels
    assert "true 5, predicted 3: 2 images" in labels
    said = {n.attributes["id"]: "".join(n.text) for n in reader.all("dialog")}
    assert "12 of 40 images" in said["1-part-1-0-1"]
    assert "showing" not in said["1-part-1-1-0"]
    assert "not included in this report" in said["1-part-1-0-0"]


def test_rare_errors_stay_visible_beside_frequent_ones():
    matrix = Matrix(labels=("a", "b"), counts=((9, 1), (500, 9)))
    reader = Reader(render_page(page(matrix)))
    wrong = [n for n in reader.all("button") if n.attributes.get("class") == "wrong"]
    weights = [float(n.attributes["style"].removeprefix("--w:")) for n in wrong]
    assert 0.2 < weights[0] < weights[1] == 1.0


def test_large_matrices_list_their_worst_errors_first():
    counts = [[0] * 20 for _ in range(20)]
    counts[4][9], counts[3][2], counts[5][5] = 17, 30, 99
    labels = tuple(f"n{i}" for i in range(20))
    reader = Reader(
        render_page(page(Matrix(labels=labels, counts=tuple(map(tuple, counts)))))
    )
    chips = [n for n in reader.all("button") if n.attributes.get("class") == "chip"]
    assert ["".join(n.text) for n in chips] == [
        "n3 predicted as n230",
        "n4 predicted as n917",
    ]


def test_recall_and_precision_stand_at_the_margins():
    text = "".join(Reader(render_page(page(confusion(1)))).text)
    assert "recall" in text
    skewed = Matrix(labels=("a", "b"), counts=((3, 1), (0, 0)))
    text = "|".join(Reader(render_page(page(skewed))).text)
    assert "75\N{NO-BREAK SPACE}%" in text
    assert "100\N{NO-BREAK SPACE}%" in text
    assert "–" in text  # class b has no images, hence no recall


def test_ids_are_unique_and_links_lead_somewhere():
    reader = Reader(render_page(full_page("same")))
    ids = [n.attributes["id"] for n in reader.nodes if "id" in n.attributes]
    assert len(ids) == len(set(ids))
    targets = [n.attributes["href"] for n in reader.all("a")]
    assert targets
    assert all(target.removeprefix("#") in ids for target in targets)
    named = [n.attributes["aria-labelledby"] for n in reader.all("section")]
    assert set(named) <= set(ids)
    opened = [
        n.attributes["commandfor"]
        for n in reader.all("button")
        if "command" in n.attributes
    ]
    assert set(opened) <= set(ids)


def test_landmarks_language_and_headings():
    reader = Reader(render_page(full_page("x")))
    assert reader.all("html")[0].attributes["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(reader.all(landmark)) == 1
    assert len(reader.all("h2")) == 2


def test_cells_are_written_as_their_columns_ask():
    columns = [("a", "integer"), ("b", "number"), ("c", "share"), ("d", "code")]
    table = Table(
        columns=tuple(Column(title=t, kind=k) for t, k in columns),
        rows=((1792, 0.03121, 0.25, "3×3"), (None, float("nan"), float("inf"), None)),
        totals=(1792, None, 1.0, "all"),
    )
    reader = Reader(render_page(page(table)))
    words = ["".join(n.text) for n in reader.all("td")]
    assert words[:4] == ["1,792", "0.03121", "25.0 %", "3×3"]
    assert words[4:8] == ["", "NaN", "∞", ""]
    bars = [n.attributes["style"] for n in reader.all("i")]
    assert bars == ["--v:0.2500", "--v:0.0000", "--v:1.0000"]
    assert reader.all("tfoot")


def test_blank_lines_part_paragraphs_and_tones_have_words():
    text = render_page(
        page(Prose(text="one\n\ntwo\nlines", tone="bad"), Prose(text="x"))
    )
    reader = Reader(text)
    assert ["".join(n.text) for n in reader.all("p")] == ["one", "two\nlines", "x"]
    assert "".join(reader.all("b")[0].text) == "Problem"


def test_empty_blocks_render():
    blocks = (
        Table(columns=(), rows=()),
        Images(images=()),
        Curve(title="", x_label="", y_label="", series=()),
        Prose(text=""),
    )
    Reader(render_page(page(*blocks)))
    Reader(render_page(Page(title="", sections=())))


def test_equal_pages_render_equally():
    assert render_page(full_page("x")) == render_page(full_page("x"))


COMMAND = "striate train photos --label-smoothing 0.1"


def test_a_command_is_monospace_and_breaks_only_between_words():
    columns = (Column("what"), Column("command", "command"))
    table = Table(columns=columns, rows=(("train again", COMMAND),))
    prose = Prose(f"Train again with `{COMMAND}`.")
    text = render_page(page(table, prose))
    reader = Reader(text)
    commands = [n for n in reader.all("code") if n.attributes.get("class") == "command"]
    assert len(commands) == 2
    assert text.count("<span>--label-smoothing</span>") == 2
    assert "`" not in "".join(n for node in reader.all("p") for n in node.text)
    assert "code span { white-space: nowrap; }" in text


def test_a_single_backtick_is_part_of_a_name():
    assert "a `b" in render_page(page(Prose("a `b")))


def test_wide_tables_show_a_hint_and_print_whole():
    text = render_page(page(Prose("x")))
    assert "Scroll this table sideways" in text
    printed = text.partition("@media print")[2].partition("</style>")[0]
    assert ".sheet { font-size: 7.5pt; width: 100%; min-width: 0; }" in printed
