"""A confusion matrix as a heat grid whose cells open their images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from striate.core.findings import Image, Matrix
from striate.report.axis_ticks import error_shade
from striate.report.format import count_text, isolate, one_line, percent
from striate.report.html_images import PageImages
from striate.report.markup import Html, bdi, escape, join, tag

# Cells grow smaller as classes grow more: with room for words in the heads, roomy,
# with digits only, and beyond those small squares.
ROOMS = {5: "wide", 12: "few", 30: "some", math.inf: "many"}
FEW = 12
TITLE = "Truth and prediction"
WORST = 12  # frequent errors listed beneath a grid too large to read cell by cell

Place = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell that counted something: where it stands, and how its dialog is found."""

    place: Place
    count: int
    dialog: str
    words: str


def matrix_html(matrix: Matrix, album: PageImages, key: str) -> Html:
    """Return the matrix, its frequent errors and one dialog a cell.

    Args:
        matrix: What to show.
        album: The page's images.
        key: A prefix that makes this grid's element ids unique on the page.

    Example:
        >>> truth = Matrix(labels=("a", "b"), counts=((3, 1), (0, 4)))
        >>> made = matrix_html(truth, PageImages(), "m")
        >>> made.count("<dialog"), 'aria-label="true a, predicted b: 1 image"' in made
        (3, True)
    """
    cells = {cell.place: cell for cell in _cells(matrix, key)}
    size = len(matrix.labels)
    room = next(name for most, name in ROOMS.items() if size <= most)
    table = tag("table", _caption(matrix), _heads(matrix), _body(matrix, cells))
    label = matrix.title or TITLE
    box = tag(
        "div", table, class_="scroll", tabindex=0, role="region", aria_label=label
    )
    dialogs = join(_dialog(cell, matrix, album) for cell in cells.values())
    readout = tag(
        "p", escape(_invitation(matrix)), class_="readout", aria_hidden="true"
    )
    note = tag("p", escape(matrix.note), class_="note") if matrix.note else Html("")
    worst = _worst(matrix, cells) if size > FEW else Html("")
    inside = [box, readout, worst, note, dialogs]
    return tag("div", *inside, class_=f"block matrix {room}", style=f"--n:{size}")


def _cells(matrix: Matrix, key: str) -> Iterator[Cell]:
    for row, counts in enumerate(matrix.counts):
        for column, count in enumerate(counts):
            if count:
                true, guess = _label(matrix, row), _label(matrix, column)
                words = f"true {isolate(true)}, predicted {isolate(guess)}: "
                yield Cell(
                    place=(row, column),
                    count=count,
                    dialog=f"{key}-{row}-{column}",
                    words=words + count_text(count, "image"),
                )


def _label(matrix: Matrix, index: int) -> str:
    return one_line(matrix.labels[index]) or "(no name)"


def _invitation(matrix: Matrix) -> str:
    verb = "Choose" if any(matrix.images.values()) else "Point at"
    return f"{verb} a cell. Rows are the truth, columns the prediction."


def _caption(matrix: Matrix) -> Html:
    return tag("caption", escape(matrix.title or TITLE))


def _heads(matrix: Matrix) -> Html:
    labels = [_label(matrix, i) for i in range(len(matrix.labels))]
    # Few classes, or a few with short names, read upright; others on their side.
    most = min(ROOMS) if any(len(label) > 4 for label in labels) else FEW
    upright = len(labels) <= most
    style = "upright" if upright else "turned"
    heads = [
        tag("th", tag("span", bdi(label)), scope="col", class_=style, title=label)
        for label in labels
    ]
    corner = tag(
        "td", tag("span", escape("true ↓")), tag("span", escape("predicted →"))
    )
    recall = tag("span", escape("recall"))
    margin = tag("th", recall, scope="col", class_=f"margin {style}")
    return tag("thead", tag("tr", corner, *heads, margin))


def _body(matrix: Matrix, cells: dict[Place, Cell]) -> Html:
    errors = [c.count for c in cells.values() if c.place[0] != c.place[1]]
    most = max(errors, default=1)
    rows = [_row(matrix, row, cells, most) for row in range(len(matrix.counts))]
    return tag("tbody", *rows, _precision(matrix))


def _row(matrix: Matrix, row: int, cells: dict[Place, Cell], most: int) -> Html:
    label, counts = _label(matrix, row), matrix.counts[row]
    head = tag("th", tag("span", bdi(label)), scope="row", title=label)
    total = sum(counts)
    places = [(row, column) for column in range(len(counts))]
    boxes = [_cell(cells.get(place), place, total, most) for place in places]
    recall = _share(counts[row], total)
    return tag("tr", head, *boxes, tag("td", escape(recall), class_="margin"))


def _cell(cell: Cell | None, place: Place, total: int, most: int) -> Html:
    right = place[0] == place[1]
    if cell is None:
        return tag("td", class_="zero right" if right else "zero")
    # Right answers are shaded by their share of the row, which is the recall.
    weight = cell.count / total if right else error_shade(cell.count, most)
    button = tag(
        "button",
        tag("span", escape(str(cell.count))),
        type="button",
        class_="right" if right else "wrong",
        style=f"--w:{weight:.3f}",
        aria_label=cell.words,
        command="show-modal",
        commandfor=cell.dialog,
    )
    return tag("td", button)


def _precision(matrix: Matrix) -> Html:
    size = len(matrix.labels)
    sums = [sum(row[column] for row in matrix.counts) for column in range(size)]
    shares = [_share(matrix.counts[i][i], total) for i, total in enumerate(sums)]
    head = tag("th", tag("span", escape("precision")), scope="row")
    cells = [tag("td", escape(share)) for share in shares]
    right = sum(matrix.counts[i][i] for i in range(size))
    overall = tag("td", escape(_share(right, sum(sums))), class_="margin")
    return tag("tr", head, *cells, overall, class_="margin")


def _share(part: int, whole: int) -> str:
    return percent(part / whole, 0).replace(" %", "%") if whole else "–"


def _worst(matrix: Matrix, cells: dict[Place, Cell]) -> Html:
    wrong = [cell for cell in cells.values() if cell.place[0] != cell.place[1]]
    wrong = sorted(wrong, key=lambda cell: -cell.count)[:WORST]
    if not wrong:
        return Html("")
    items = [tag("li", _chip(cell, matrix)) for cell in wrong]
    return tag("div", tag("h4", escape("Most frequent errors")), tag("ol", *items))


def _chip(cell: Cell, matrix: Matrix) -> Html:
    true, guess = (bdi(_label(matrix, index)) for index in cell.place)
    words = join(
        [true, escape(" taken for "), guess, tag("b", escape(f"{cell.count:,}"))]
    )
    return tag(
        "button",
        words,
        type="button",
        class_="chip",
        command="show-modal",
        commandfor=cell.dialog,
    )


def _dialog(cell: Cell, matrix: Matrix, album: PageImages) -> Html:
    images = matrix.images.get(cell.place, ())
    true, guess = (bdi(_label(matrix, index)) for index in cell.place)
    heading = tag("h3", escape("true "), true, escape(", predicted "), guess)
    close = tag("button", escape("Close"), type="submit", class_="close")
    head = tag("form", heading, close, method="dialog")
    said = tag("p", escape(_holding(len(images), cell.count)), class_="note")
    shown = album.gallery(images, _scale(images)) if images else Html("")
    inside = [head, said, shown]
    return tag("dialog", *inside, id=cell.dialog, closedby="any", aria_label=cell.words)


def _holding(held: int, count: int) -> str:
    if held == 0:
        return f"{count_text(count, 'image')} counted; none is held in this report."
    if held < count:
        return f"showing {held:,} of {count:,}"
    return count_text(count, "image")


def _scale(images: tuple[Image, ...]) -> int:
    """Enlarge small images to about 96 pixels, by a whole factor."""
    side = max(max(image.width, image.height) for image in images)
    return max(1, 96 // max(1, side))
