"""Render a confusion matrix as an HTML table; a click on a cell shows its images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from striate.core.findings import Image, Matrix
from striate.core.format import count_text
from striate.report.axis_ticks import error_shade
from striate.report.format import NO_BREAK_SPACE, isolate, one_line, percent
from striate.report.html_images import PageImages
from striate.report.markup import Html, Value, bdi, escape, join, note, tag

# Size of the cells by number of classes: wide with names, normal, digits only, small
# squares. The values are classes of page.css.
CELL_SIZES = {5: "wide", 12: "few", 30: "some", math.inf: "many"}
MAX_READABLE = 12
TITLE = "Confusion matrix"
MAX_ERRORS = 12  # frequent errors listed below a larger matrix

Position = tuple[int, int]  # row (true class), column (predicted class)


@dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """A cell of the confusion matrix with a count above 0."""

    position: Position
    count: int
    dialog: str
    label: str


Cells = dict[Position, MatrixCell]


def matrix_html(matrix: Matrix, page_images: PageImages, key: str) -> Html:
    """Return the HTML of a matrix, its most frequent errors and one dialog per cell.

    Without `key`, there are no dialogs, and nothing can be clicked.

    Example:
        >>> truth = Matrix(labels=("a", "b"), counts=((3, 1), (0, 4)))
        >>> html = matrix_html(truth, PageImages(), "m")
        >>> html.count("<dialog"), 'aria-label="true a, predicted b: 1 image"' in html
        (3, True)
    """
    cells = {cell.position: cell for cell in _cells(matrix, key)}
    size = len(matrix.labels)
    cell_size = next(name for most, name in CELL_SIZES.items() if size <= most)
    title = matrix.title or TITLE
    caption = tag("caption", escape(title))
    table = tag("table", caption, _heads(matrix), _body(matrix, cells))
    box = tag(
        "div", table, class_="scroll", tabindex=0, role="region", aria_label=title
    )
    opened = cells.values() if key else ()
    dialogs = join(_dialog(cell, matrix, page_images) for cell in opened)
    action = "Point at a cell to see its classes. " if key else ""
    if key and any(matrix.images.values()):
        action = "Click a cell to see its images. "
    hint = escape(f"{action}Rows: true class; columns: predicted.")
    readout = tag("p", hint, class_="readout", aria_hidden="true")
    errors = _frequent_errors(matrix, cells) if size > MAX_READABLE else Html("")
    inside = [box, readout, errors, note(matrix.note), dialogs]
    return tag("div", *inside, class_=f"block matrix {cell_size}", style=f"--n:{size}")


def _cells(matrix: Matrix, key: str) -> Iterator[MatrixCell]:
    for row, counts in enumerate(matrix.counts):
        for column, count in enumerate(counts):
            if count:
                true, guess = _label(matrix, row), _label(matrix, column)
                text = f"true {isolate(true)}, predicted {isolate(guess)}: "
                yield MatrixCell(
                    position=(row, column),
                    count=count,
                    dialog=f"{key}-{row}-{column}" if key else "",
                    label=text + count_text(count, "image"),
                )


def _label(matrix: Matrix, index: int) -> str:
    return one_line(matrix.labels[index]) or "(no name)"


def _heads(matrix: Matrix) -> Html:
    labels = [_label(matrix, i) for i in range(len(matrix.labels))]
    # Column names are upright if they are few or short, else turned.
    most = min(CELL_SIZES) if any(len(label) > 4 for label in labels) else MAX_READABLE
    upright = len(labels) <= most
    style = "upright" if upright else "turned"
    heads = [
        tag("th", tag("span", bdi(label)), scope="col", class_=style, title=label)
        for label in labels
    ]
    axes = [tag("span", escape(axis)) for axis in ("true ↓", "predicted →")]
    corner = tag("td", *axes)
    recall = tag("span", escape("recall"))
    margin = tag("th", recall, scope="col", class_=f"margin {style}")
    return tag("thead", tag("tr", corner, *heads, margin))


def _body(matrix: Matrix, cells: Cells) -> Html:
    errors = [c.count for c in cells.values() if c.position[0] != c.position[1]]
    most = max(errors, default=1)
    rows = [_row(matrix, row, cells, most) for row in range(len(matrix.counts))]
    return tag("tbody", *rows, _precision(matrix))


def _row(matrix: Matrix, row: int, cells: Cells, most: int) -> Html:
    label, counts = _label(matrix, row), matrix.counts[row]
    head = tag("th", tag("span", bdi(label)), scope="row", title=label)
    total = sum(counts)
    positions = [(row, column) for column in range(len(counts))]
    boxes = [_cell(cells.get(p), p, total, most) for p in positions]
    recall = _share(counts[row], total)
    return tag("tr", head, *boxes, tag("td", escape(recall), class_="margin"))


def _cell(cell: MatrixCell | None, position: Position, total: int, most: int) -> Html:
    correct = position[0] == position[1]
    if cell is None:
        return tag("td", class_="zero right" if correct else "zero")
    # Correct predictions are shaded by their share of the row, which is the recall.
    weight = cell.count / total if correct else error_shade(cell.count, most)
    count = tag("span", escape(str(cell.count)))
    side, style = "right" if correct else "wrong", f"--w:{weight:.3f}"
    button = _button(cell, count, class_=side, style=style, aria_label=cell.label)
    return tag("td", button)


def _precision(matrix: Matrix) -> Html:
    size = len(matrix.labels)
    sums = [sum(row[column] for row in matrix.counts) for column in range(size)]
    shares = [_share(matrix.counts[i][i], total) for i, total in enumerate(sums)]
    head = tag("th", tag("span", escape("precision")), scope="row")
    cells = [tag("td", escape(share)) for share in shares]
    correct = sum(matrix.counts[i][i] for i in range(size))
    overall = tag("td", escape(_share(correct, sum(sums))), class_="margin")
    return tag("tr", head, *cells, overall, class_="margin")


def _share(part: int, whole: int) -> str:
    return percent(part / whole, 0).replace(" ", NO_BREAK_SPACE) if whole else "–"


def _frequent_errors(matrix: Matrix, cells: Cells) -> Html:
    wrong = [cell for cell in cells.values() if cell.position[0] != cell.position[1]]
    wrong = sorted(wrong, key=lambda cell: -cell.count)[:MAX_ERRORS]
    if not wrong:
        return Html("")
    items = [tag("li", _chip(cell, matrix)) for cell in wrong]
    return tag("div", tag("h4", escape("Most frequent errors")), tag("ol", *items))


def _chip(cell: MatrixCell, matrix: Matrix) -> Html:
    true, guess = (bdi(_label(matrix, index)) for index in cell.position)
    text = [true, escape(" predicted as "), guess, tag("b", escape(f"{cell.count:,}"))]
    return _button(cell, *text, class_="chip")


def _button(cell: MatrixCell, *children: Html, **attributes: Value) -> Html:
    """Return a button that opens the dialog of a cell; only its text without one."""
    if not cell.dialog:
        names = f"cell {attributes.pop('class_')}"
        return tag("span", *children, class_=names, title=cell.label, **attributes)
    opens = {"command": "show-modal", "commandfor": cell.dialog}
    return tag("button", *children, type="button", **attributes, **opens)


def _dialog(cell: MatrixCell, matrix: Matrix, page_images: PageImages) -> Html:
    images = matrix.images.get(cell.position, ())
    true, guess = (bdi(_label(matrix, index)) for index in cell.position)
    heading = tag("h3", escape("true "), true, escape(", predicted "), guess)
    close = tag("button", escape("Close"), type="submit", class_="close")
    head = tag("form", heading, close, method="dialog")
    shown = note(_count_note(len(images), cell.count))
    gallery = page_images.gallery(images, _scale(images)) if images else Html("")
    inside = [head, shown, gallery]
    return tag("dialog", *inside, id=cell.dialog, closedby="any", aria_label=cell.label)


def _count_note(visible: int, count: int) -> str:
    if visible == 0:
        return f"{count_text(count, 'image')}, not included in this report."
    if visible < count:
        return f"{visible:,} of {count_text(count, 'image')}"
    return count_text(count, "image")


def _scale(images: tuple[Image, ...]) -> int:
    """Return the integer zoom factor that enlarges small images to about 96 pixels."""
    side = max(max(image.width, image.height) for image in images)
    return max(1, 96 // max(1, side))
