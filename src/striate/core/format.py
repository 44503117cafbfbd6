"""Quantities in words: bytes as people read them, sides as people write them."""

from __future__ import annotations

import re


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


def sides_of(text: str) -> int | tuple[int, int]:
    """Read an image's side, or its height and width.

    Raises:
        ValueError: It is neither.

    Example:
        >>> sides_of("64"), sides_of("64x48"), sides_of("64X48"), sides_of("64×48")
        (64, (64, 48), (64, 48), (64, 48))
    """
    parts = [part.strip() for part in re.split("[xX×]", text)]
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(text)
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
