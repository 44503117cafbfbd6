"""Formatting of counts and byte counts, and parsing of sizes such as `64x48`."""

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


def count_text(count: int, noun: str, plural: str = "") -> str:
    """Format a count with a noun in singular or plural (default: with an s).

    Example:
        >>> count_text(1, "image"), count_text(2000, "image")
        ('1 image', '2,000 images')
        >>> count_text(1, "class", "classes"), count_text(2, "class", "classes")
        ('1 class', '2 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def file_counts_text(
    *, used: int, quarantined: int, ignored: int, unused: int = 0, left_out: int = 0
) -> str:
    """Return the counts of all files of a data set as a sum.

    Args:
        used: Images of the splits.
        quarantined: Files that should be images but cannot be used.
        ignored: Files that do not belong to the data set.
        unused: Training images outside `--fraction`.
        left_out: Images equal to an image of another group that is in val or test.

    Example:
        >>> file_counts_text(used=299, quarantined=2, ignored=2)
        '303 files = 299 used + 2 quarantined + 2 ignored'
        >>> file_counts_text(used=1, quarantined=0, ignored=0, left_out=1)
        '2 files = 1 used + 1 left out + 0 quarantined + 0 ignored'
    """
    counts = [("used", used), ("outside --fraction", unused), ("left out", left_out)]
    terms = [(word, n) for word, n in counts if n or word == "used"]
    terms += [("quarantined", quarantined), ("ignored", ignored)]
    total = count_text(sum(n for _, n in terms), "file")
    return f"{total} = {' + '.join(f'{n:,} {word}' for word, n in terms)}"


def duration_text(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours.

    Example:
        >>> duration_text(7.3), duration_text(90), duration_text(4000)
        ('7.3 s', '1 min 30 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
