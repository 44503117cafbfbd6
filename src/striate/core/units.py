"""Quantities in words: bytes as people write them."""

from __future__ import annotations


def size_text(count: int) -> str:
    """Write bytes for people; 1 MB is 10⁶ bytes.

    Example:
        >>> size_text(553430176), size_text(2340000000), size_text(640)
        ('553.4 MB', '2.34 GB', '640 B')
    """
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:,.{2 if power == 9 else 1}f} {unit}"
    return f"{count} B"
