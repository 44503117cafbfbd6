"""Format numbers and names, for HTML, terminal and PNG output."""

from __future__ import annotations

import math
import re
import unicodedata

from striate.core.findings import Cell
from striate.core.format import format_bytes

MINUS = "−"
NO_BREAK_SPACE = "\u00a0"  # space without a line break
NUMERIC = ("integer", "number", "share", "percent", "ratio", "probability", "bytes")

# Half a surrogate pair cannot be written as UTF-8, and a control character can move
# a terminal's cursor or end an HTML token; both are replaced by a visible mark.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]")
_RIGHT_TO_LEFT = {"R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "PDF"}


def printable(text: str) -> str:
    r"""Replace unprintable characters by `�`, except for line breaks and tabs.

    Example:
        >>> printable("caf\udce9 \x1b[31m")
        'caf� �[31m'
    """
    return text if text.isprintable() else _UNPRINTABLE.sub("\ufffd", text)


def n_text(count: int) -> str:
    """Format a number of images, such as `n = 74`, on one line."""
    return f"n{NO_BREAK_SPACE}={NO_BREAK_SPACE}{count:,}"


def one_line(text: str) -> str:
    r"""Return the text as one line of printable characters, for headings and tooltips.

    Example:
        >>> one_line("two\n  lines")
        'two lines'
    """
    return " ".join(printable(text).split())


def isolate(text: str) -> str:
    """Wrap right-to-left text in Unicode isolates; other text is returned unchanged.

    Example:
        >>> isolate("seven"), len(isolate("שבע"))
        ('seven', 5)
    """
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in text):
        return f"\u2068{text}\u2069"
    return text


def shorten(text: str, most: int) -> str:
    """Shorten a text to `most` characters, with an ellipsis at the end.

    Example:
        >>> shorten("golden retriever", 8)
        'golden …'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def number(value: float) -> str:
    """Format a number with four significant digits and a typographic minus sign.

    Example:
        >>> number(0.03121), number(-12345.6), number(4.2e-9), number(2.0)
        ('0.03121', '−12,346', '4.2e−9', '2')
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{MINUS if value < 0 else ''}∞"
    if value == 0 or 1e-4 <= abs(value) < 1e3:
        return f"{value:.4g}".replace("-", MINUS)
    if abs(value) < 1e9 and abs(value) >= 1e3:
        return f"{value:,.0f}".replace("-", MINUS)
    mantissa, power = f"{value:.3e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}".replace("-", MINUS)


def percent(value: float, digits: int = 1) -> str:
    """Format a fraction (0 to 1) as a percentage.

    Example:
        >>> percent(0.9887), percent(1.0), percent(float("nan"))
        ('98.9 %', '100.0 %', 'NaN')
    """
    if not math.isfinite(value) or abs(value) > 1e6:
        return number(value)
    return f"{100 * value:.{digits}f} %".replace("-", MINUS)


def ci_text(interval: tuple[float, float], digits: int = 1) -> str:
    """Format a confidence interval of a fraction as percentages.

    Example:
        >>> ci_text((0.9455, 0.9982)).replace(NO_BREAK_SPACE, " ")
        '94.5–99.8 %'
    """
    low, high = (100 * bound for bound in interval)
    return f"{low:.{digits}f}–{high:.{digits}f}{NO_BREAK_SPACE}%"


def probability_text(value: float, digits: int = 1) -> str:
    """Format a probability; only exact 0 and 1 can read as 0 % and 100 %.

    A softmax output rounds to 0 or 1 long before it is certain.

    Example:
        >>> [probability_text(p) for p in (0.987, 0.9997, 0.0002, 1.0, 0.0)]
        ['98.7 %', '>99.9 %', '<0.1 %', '100.0 %', '0.0 %']
        >>> probability_text(0.997, 0), probability_text(0.002, 0)
        ('>99 %', '<1 %')
    """
    smallest = 10.0**-digits
    if 0 < value < 1:
        if percent(value, digits) == percent(1, digits):
            return f">{100 - smallest:.{digits}f} %"
        if percent(value, digits) == percent(0, digits):
            return f"<{smallest:.{digits}f} %"
    return percent(value, digits)


def value_text(value: float, share: bool) -> str:
    """Format a chart value as a number or a percentage.

    Example:
        >>> value_text(0.98765, share=True), value_text(0.98765, share=False)
        ('98.77 %', '0.9877')
    """
    return percent(value, 2) if share else number(value)


def cell_text(cell: Cell, kind: str) -> str:
    """Format a table cell according to the kind of its column.

    Example:
        >>> cell_text(1792, "integer"), cell_text(0.25, "share"), cell_text(None, "")
        ('1,792', '25.0 %', '')
    """
    if cell is None:
        return ""
    if isinstance(cell, str):
        return printable(cell)
    if kind in ("share", "percent", "ratio"):
        return percent(cell, 2 if kind == "ratio" else 1)
    if kind == "probability":
        return probability_text(cell)
    if kind == "bytes":
        return format_bytes(int(cell))
    if isinstance(cell, int):
        return f"{cell:,}".replace("-", MINUS)
    return number(cell)
