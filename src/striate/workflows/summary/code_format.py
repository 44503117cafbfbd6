"""Format Python calls on lines of at most 88 characters, for `--code`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

WIDTH = 88


@dataclass(frozen=True)
class CallCode:
    """Code of a call, such as `nn.Conv2d(1, 6, 5)`, or of a bracket."""

    start: str  # with the opening bracket, such as `nn.Conv2d(`
    items: tuple[CallCode | str, ...]
    end: str = ")"

    def __str__(self) -> str:
        return f"{self.start}{', '.join(map(str, self.items))}{self.end}"


def format_code(
    prefix: str, code: CallCode | str, indent: int, suffix: str = ""
) -> str:
    """Return code on one line if it fits, else with one item per line.

    Example:
        >>> print(format_code("x = ", CallCode("f(", ("1", "2")), 4))
            x = f(1, 2)
    """
    margin = " " * indent
    line = f"{margin}{prefix}{code}{suffix}"
    if len(line) <= WIDTH or isinstance(code, str):
        return line
    inside = " " * (indent + 4) + ", ".join(map(str, code.items))
    if len(inside) <= WIDTH and code.start[:-1]:  # the style of black for calls
        return f"{margin}{prefix}{code.start}\n{inside}\n{margin}{code.end}{suffix}"
    lines = [format_code("", item, indent + 4, ",") for item in code.items]
    body = "\n".join(lines)
    return f"{margin}{prefix}{code.start}\n{body}\n{margin}{code.end}{suffix}"


def repeated(items: Sequence[CallCode]) -> tuple[CallCode | str, ...]:
    """Return items with three or more equal neighbors as one list comprehension.

    Example:
        >>> [str(item) for item in repeated([CallCode("f(", ())] * 3)]
        ['*[f() for _ in range(3)]']
    """
    result: list[CallCode | str] = []
    for _, group in groupby(items, key=str):
        run = list(group)
        if len(run) < 3:
            result += run
        else:
            result.append(f"*[{run[0]} for _ in range({len(run)})]")
    return tuple(result)
