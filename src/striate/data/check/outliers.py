"""Outliers: blank, dark, bright and blurred images, unusual sizes and colors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from striate.data.check.finding import Finding, ImageGroup
from striate.data.check.image_stats import ImageStats

BLANK = 2.0  # standard deviation in levels: sensor noise of an empty image
DARK, BRIGHT = 40.0, 215.0  # level that 99 % of the pixels are below, or above
EMPTY = 12.0  # standard deviation: a small drawing on white paper has more
RARE = 0.05  # largest share of images for a size to be unusual
RARE_COLOR = 0.02  # the same for a color mode: drawings of many colors may be gray
MANY = 0.25  # largest share of blurred images that still counts as outliers
TIMES = 4.0  # ratio to the median side or aspect that is unusual
RAMP = 0.25  # sharpness of a linear ramp: no detail finer than four pixels
SOFT = 0.01  # sharpness above RAMP below which there is no detail
USUAL = 0.15  # share of the median sharpness: a soft data set has no outliers
SOFT_EDGE = 0.4  # sharpness of the strongest edges, below which an image is blurred
USUAL_EDGE = 0.6  # share of the median of it

_LOOK = "look at these images, and remove images that do not belong to the data set"


def outlier_findings(images: Sequence[ImageStats]) -> list[Finding]:
    """Return findings about images that differ from most images of the data set.

    Example:
        >>> gray = dict(height=9, width=9, colored=False, content="", sharpness=0.5)
        >>> tone = dict(brightness=90.0, lightest=200.0, darkest=5.0)
        >>> good = [ImageStats(contrast=40.0, **gray, **tone)] * 30
        >>> blank = ImageStats(contrast=0.5, **gray, **tone)
        >>> [finding.what for finding in outlier_findings([*good, blank])]
        ['1 image is blank (a single gray level)']
    """
    if not images:
        return []
    blank = _which(images, lambda image: image.contrast < BLANK)
    blank_set = set(blank)
    dark = _which(images, lambda image: _is_empty(image) and image.lightest < DARK)
    bright = _which(images, lambda image: _is_empty(image) and image.darkest > BRIGHT)
    dark, bright = _few(dark, images, RARE), _few(bright, images, RARE)
    dark, bright = ([i for i in x if i not in blank_set] for x in (dark, bright))
    blurred = [i for i in _blurred(images) if i not in blank_set | {*dark, *bright}]
    color = [i for i in _other_color(images) if i not in blank_set]
    size, in_color = _other_size(images), sum(image.colored for image in images)
    color_text = "is in color" if in_color < len(images) / 2 else "is gray"
    findings = [
        _finding("blank", blank, "is blank (a single gray level)", images, _level_note),
        _finding("dark", dark, "is almost black", images, _level_note),
        _finding("bright", bright, "is almost white", images, _level_note),
        _finding("blurred", blurred, "is blurred, unlike the others", images, _sharp),
        _finding("size", size, "has an unusual size", images, _size_note),
        _finding("color", color, color_text, images, _size_note),
    ]
    return [finding for finding in findings if finding]


def _is_empty(image: ImageStats) -> bool:
    return image.contrast < EMPTY


def _which(
    images: Sequence[ImageStats], condition: Callable[[ImageStats], bool]
) -> list[int]:
    return [i for i, image in enumerate(images) if condition(image)]


def _few(positions: list[int], images: Sequence[ImageStats], share: float) -> list[int]:
    """Return `positions`, or [] if they exceed the fraction `share` of `images`."""
    return positions if len(positions) <= share * len(images) else []


def _blurred(images: Sequence[ImageStats]) -> list[int]:
    """Return the indices of blurred images; none if many images are blurred."""
    fine = np.array([image.sharpness for image in images]) - RAMP
    edge = np.array([image.edge_sharpness for image in images])
    # A drawing has no detail either, but its edges are sharp.
    soft = (fine < SOFT) & (edge < SOFT_EDGE)
    # In a set of enlarged images, half would be below the limit.
    unusual = (fine < USUAL * np.median(fine)) | (edge < USUAL_EDGE * np.median(edge))
    return _few(np.flatnonzero(soft & unusual).tolist(), images, MANY)


def _other_size(images: Sequence[ImageStats]) -> list[int]:
    sizes = Counter((image.height, image.width) for image in images)
    usual, count = sizes.most_common(1)[0]
    if count >= (1 - RARE) * len(images):
        return _which(images, lambda image: (image.height, image.width) != usual)
    longest = np.array([max(image.height, image.width) for image in images], float)
    shape = np.array([image.width / image.height for image in images])
    outliers = _beyond(longest, TIMES) | _beyond(shape, TIMES)
    most = max(2, RARE * len(images))
    return np.flatnonzero(outliers).tolist() if outliers.sum() <= most else []


def _beyond(values: np.ndarray, factor: float) -> np.ndarray:
    ratio = values / np.median(values)
    return np.asarray((ratio > factor) | (ratio < 1 / factor))


def _other_color(images: Sequence[ImageStats]) -> list[int]:
    """Return the indices of rare gray images or of rare color images, else []."""
    most = max(2, RARE_COLOR * len(images))
    colored = _which(images, lambda image: image.colored)
    if 0 < len(colored) <= most:
        return colored
    if 0 < len(images) - len(colored) <= most:
        return _which(images, lambda image: not image.colored)
    return []


def _finding(
    kind: str,
    members: Sequence[int],
    predicate: str,
    images: Sequence[ImageStats],
    note: Callable[[ImageStats], str],
) -> Finding | None:
    if not members:
        return None
    what = f"{len(members):,} image {predicate}"
    if len(members) > 1:
        verb, _, rest = predicate.partition(" ")
        plural_verb = {"is": "are", "has": "have"}[verb]
        what = f"{len(members):,} images {plural_verb} {rest}"
    groups = tuple(ImageGroup(members=(i,), note=note(images[i])) for i in members)
    return Finding(
        kind=kind, tone="warning", what=what, why=_WHY[kind], fix=_LOOK, groups=groups
    )


_WHY = {
    "blank": "A network cannot learn anything useful from a blank image.",
    "dark": "99\u00a0% of the pixels are in the darkest sixth of the gray levels.",
    "bright": "99\u00a0% of the pixels are in the brightest sixth of the gray levels.",
    "blurred": "Even the sharpest edges are several pixels wide, unlike in others.",
    "size": "Resizing distorts, crops or enlarges these images more than other images.",
    "color": "A network can recognize these images by color alone.",
}


def _level_note(image: ImageStats) -> str:
    return f"levels {image.darkest:.0f}–{image.lightest:.0f}"


def _sharp(image: ImageStats) -> str:
    return f"edge sharpness {image.edge_sharpness:.2f}"


def _size_note(image: ImageStats) -> str:
    return f"{image.height}×{image.width}"
