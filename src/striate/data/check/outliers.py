"""Images that stand out from their set: blank, dark, blurred, of another size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from striate.data.check.finding import Finding, Group
from striate.data.check.measure import Facts

BLANK = 2.0  # levels of deviation: an empty image keeps that much sensor noise
DARK, PALE = 40.0, 215.0  # level that 99 % of an image is below, or above
RARE = 0.05  # share below which a size or a coloring is the exception
MANY = 0.25  # share of soft images from which on they are a kind, not exceptions
TIMES = 4.0  # longer or shorter than the usual side
RAMP = 0.25  # sharpness of an even slope: nothing finer than four pixels
SOFT = 0.01  # sharpness over that of a slope, below which there is no detail
USUAL = 0.15  # of the set's own: a set that is soft as a rule is not at fault

_LOOK = "look at them; leave out those that do not belong"


def oddities(facts: Sequence[Facts]) -> list[Finding]:
    """Return findings about images that are unlike the rest.

    Example:
        >>> gray = dict(height=9, width=9, colored=False, content="", sharpness=0.5)
        >>> tone = dict(brightness=90.0, lightest=200.0, darkest=5.0)
        >>> good = [Facts(contrast=40.0, **gray, **tone)] * 30
        >>> blank = Facts(contrast=0.5, **gray, **tone)
        >>> [finding.what for finding in oddities([*good, blank])]
        ['1 image shows nothing: one even tone']
    """
    if not facts:
        return []
    blank = _which(facts, lambda one: one.contrast < BLANK)
    taken = set(blank)
    dark = [i for i in _dark(facts) if i not in taken]
    pale = [i for i in _pale(facts) if i not in taken]
    blurred = [i for i in _blurred(facts) if i not in taken | {*dark, *pale}]
    color = [i for i in _other_color(facts) if i not in taken]
    found = [
        _finding("blank", blank, "shows nothing: one even tone", facts, _tone),
        _finding("dark", dark, "is almost black", facts, _tone),
        _finding("pale", pale, "is almost white", facts, _tone),
        _finding("blurred", blurred, "is blurred beside the others", facts, _sharp),
        _finding("size", _other_size(facts), "has an unusual size", facts, _size),
        _finding("color", color, _color_words(facts), facts, _size),
    ]
    return [finding for finding in found if finding]


def _which(facts: Sequence[Facts], holds: Callable[[Facts], bool]) -> list[int]:
    return [i for i, one in enumerate(facts) if holds(one)]


def _dark(facts: Sequence[Facts]) -> list[int]:
    """Dark ones, unless the set is dark as a rule."""
    found = _which(facts, lambda one: one.lightest < DARK)
    return found if len(found) <= RARE * len(facts) else []


def _pale(facts: Sequence[Facts]) -> list[int]:
    found = _which(facts, lambda one: one.darkest > PALE)
    return found if len(found) <= RARE * len(facts) else []


def _blurred(facts: Sequence[Facts]) -> list[int]:
    """Return images without any fine detail, in a set that has some."""
    fine = np.array([one.sharpness for one in facts]) - RAMP
    limit = min(SOFT, USUAL * float(np.median(fine)))
    found = np.flatnonzero(fine < limit).tolist()
    # What was enlarged is soft as a rule: half of it would be odd ones.
    return found if len(found) <= MANY * len(facts) else []


def _other_size(facts: Sequence[Facts]) -> list[int]:
    sizes = Counter((one.height, one.width) for one in facts)
    usual, count = sizes.most_common(1)[0]
    if count >= (1 - RARE) * len(facts):
        return _which(facts, lambda one: (one.height, one.width) != usual)
    longest = np.array([max(one.height, one.width) for one in facts], float)
    shape = np.array([one.width / one.height for one in facts])
    odd = _beyond(longest, TIMES) | _beyond(shape, TIMES)
    return np.flatnonzero(odd).tolist()


def _beyond(values: np.ndarray, times: float) -> np.ndarray:
    ratio = values / np.median(values)
    return np.asarray((ratio > times) | (ratio < 1 / times))


def _other_color(facts: Sequence[Facts]) -> list[int]:
    """Return gray ones among colored, or colored among gray, where they are few."""
    colored = _which(facts, lambda one: one.colored)
    if 0 < len(colored) <= RARE * len(facts):
        return colored
    if 0 < len(facts) - len(colored) <= RARE * len(facts):
        return _which(facts, lambda one: not one.colored)
    return []


def _color_words(facts: Sequence[Facts]) -> str:
    colored = sum(one.colored for one in facts)
    return "is colored" if colored < len(facts) / 2 else "is gray"


def _finding(
    kind: str,
    members: Sequence[int],
    words: str,
    facts: Sequence[Facts],
    note: Callable[[Facts], str],
) -> Finding | None:
    if not members:
        return None
    one = len(members) == 1
    if not one:
        words = _plural(words)
    what = f"{len(members):,} image{'' if one else 's'} {words}"
    groups = tuple(Group(members=(i,), note=note(facts[i])) for i in members)
    return Finding(
        kind=kind, tone="warning", what=what, why=_WHY[kind], fix=_LOOK, groups=groups
    )


_WHY = {
    "blank": "There is nothing to learn from them but that their label goes with "
    "nothing.",
    "dark": "Nearly all of each lies in the darkest sixth of the levels.",
    "pale": "Nearly all of each lies in the lightest sixth of the levels.",
    "blurred": "They hold nothing finer than four pixels, as the others do.",
    "size": "Resizing treats them unlike the others: they are bent, cut or enlarged.",
    "color": "A network can tell them by their colors alone.",
}


def _plural(words: str) -> str:
    verb, _, rest = words.partition(" ")
    return f"{ {'is': 'are', 'has': 'have', 'shows': 'show'}[verb] } {rest}"


def _tone(one: Facts) -> str:
    return f"levels {one.darkest:.0f}–{one.lightest:.0f}"


def _sharp(one: Facts) -> str:
    return f"sharpness {one.sharpness:.2f}"


def _size(one: Facts) -> str:
    return f"{one.height}×{one.width}"
