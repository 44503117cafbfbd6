"""Warnings about class names that look the same, such as `cat`, `Cat` and `cat `."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from striate.core.format import count_text

GROUPS_SHOWN = 5


def lookalike_warnings(names: Sequence[str]) -> list[str]:
    """Return a warning for each group of class names that look the same.

    Names look the same if they differ only in case, spaces, underscores, hyphens
    between words, invisible characters, or the Unicode form of accents.

    Example:
        >>> lookalike_warnings(["Cat", "cat", "dog"])
        ["these class names look the same: 'Cat', 'cat'; if they are one class, merge \
them"]
        >>> lookalike_warnings(["-1", "1"])
        []
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_appearance(name)].append(name)
    lookalikes = [group for group in groups.values() if len(group) > 1]
    warnings = [
        f"these class names look the same: {_quoted(group)}; if they are one class, "
        "merge them"
        for group in lookalikes[:GROUPS_SHOWN]
    ]
    if len(lookalikes) > GROUPS_SHOWN:
        count = count_text(len(lookalikes), "group")
        warnings.append(f"{count} of class names look the same")
    return warnings


def _appearance(name: str) -> str:
    """Return a key that is the same for names that look the same."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text).strip()


def _quoted(names: Sequence[str]) -> str:
    """Return the names in quotes; accents as codes where only their form differs."""
    forms = {unicodedata.normalize("NFC", name) for name in names}
    quote = repr if len(forms) == len(names) else ascii
    return ", ".join(map(quote, names))
