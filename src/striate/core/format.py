"""Formatting of byte counts, and parsing of image sizes such as `64x48`."""

from __future__ import annotations

import re


def format_bytes(count: int) -> str:
    """Format a number of bytes with a decimal unit; 1 MB is 10⁶ bytes.

    Example:
        >>> format_bytes(553430176), format_bytes(2340000000), format_bytes(640)
        ('553.4 MB', '2.34 GB', '640 B')
    """
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:,.{2 if power == 9 else 1}f} {unit}"
    return f"{count} B"


def parse_image_size(text: str) -> int | tuple[int, int]:
    """Parse an image size such as `64` (square) or `64x48` (height x width).

    Raises:
        ValueError: The text is not an image size.

    Example:
        >>> [parse_image_size(text) for text in ("64", "64x48", "64X48", "64×48")]
        [64, (64, 48), (64, 48), (64, 48)]
    """
    parts = [part.strip() for part in re.split("[xX×]", text)]
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(text)
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
