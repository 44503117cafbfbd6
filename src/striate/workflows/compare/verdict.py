"""What a comparison says in words: the answer first, then everything that limits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from striate.core.findings import Prose
from striate.metrics.paired import Interval
from striate.report.format import MINUS, counted
from striate.workflows.compare.groups import Side
from striate.workflows.compare.significance import Match

LEVEL = 0.05
TOLD_SINGLY = 2  # matches; of more, the tables hold the figures


def points(share: float) -> str:
    """Write a difference of shares in percentage points, sign first.

    Example:
        >>> points(0.0123), points(-0.004), points(0.0)
        ('+1.2', '−0.4', '0.0')
    """
    return signed(100 * share, 1)


def signed(value: float, digits: int) -> str:
    """Write a number with its sign, none before a zero.

    Example:
        >>> signed(0.25, 3), signed(-2.0, 1), signed(-0.0001, 2)
        ('+0.250', '−2.0', '0.00')
    """
    text = f"{value:+.{digits}f}"
    if not float(text):
        return text[1:]
    return text.replace("-", MINUS)


def span(interval: Interval | None) -> str:
    """Write an interval in percentage points.

    Example:
        >>> span((-0.004, 0.022)), span(None)
        ('−0.4 to +2.2', '')
    """
    if interval is None:
        return ""
    return f"{points(interval[0])} to {points(interval[1])}"


def p_text(p: float | None) -> str:
    """Write a p-value with the digits that it can bear.

    Example:
        >>> p_text(0.3438), p_text(0.0123), p_text(2e-9), p_text(None)
        ('0.34', '0.012', '< 0.0001', '')
    """
    if p is None:
        return ""
    if p < 1e-4:
        return "< 0.0001"
    return f"{p:.2f}" if p >= 0.095 else f"{p:.2g}"


def p_equals(p: float | None) -> str:
    """Write what follows the letter p.

    Example:
        >>> p_equals(0.34), p_equals(1e-9)
        ('= 0.34', '< 0.0001')
    """
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def verdicts(found: Sequence[Match]) -> Iterator[Prose]:
    """Yield what each match shows; of many, which sides are better and which worse."""
    tests = sum(match.p is not None for match in found)
    if len(found) <= TOLD_SINGLY:
        yield from (verdict(match, tests) for match in found)
        return
    first = found[0].first.letter
    order = ("Better than", "Worse than", "Not told apart from")
    heaps: dict[str, list[str]] = {f"{words} {first}": [] for words in order}
    for match in found:
        heaps.setdefault(_heap(match, first), []).append(match.second.letter)
    told = [f"{heap}: {', '.join(all_)}." for heap, all_ in heaps.items() if all_]
    corrected = f" The p-values are corrected for {tests} tests (Holm)." * bool(tests)
    yield Prose(text=" ".join(told) + corrected)


def _heap(match: Match, first: str) -> str:
    if match.corrected is None:
        return "Not tested"
    if match.corrected >= LEVEL:
        return f"Not told apart from {first}"
    return f"{'Better' if match.difference > 0 else 'Worse'} than {first}"


def verdict(match: Match, tests: int) -> Prose:
    """Return what a match shows, in a few sentences.

    Args:
        match: The sides and their difference.
        tests: How many p-values the comparison has, for which they are corrected.
    """
    sentences = {
        "images": _of_images,
        "seeds": _of_seeds,
        "unpaired": _of_seeds,
        "none": _of_nothing,
    }[match.how](match)
    return Prose(text=" ".join([*sentences, *_answer(match, tests)]))


def _of_images(match: Match) -> Iterator[str]:
    a, b = match.first.letter, match.second.letter
    (pairing,) = match.pairings
    paired = pairing.paired
    yield (
        f"{b} gets {counted(paired.gained, 'image')} right that {a} gets wrong, and "
        f"{paired.lost:,} wrong that {a} gets right: {points(paired.difference)} "
        f"points of accuracy (95 % interval {span(paired.interval)}) on the same "
        f"{counted(pairing.count, 'image')}."
    )


def _of_seeds(match: Match) -> Iterator[str]:
    a, b = match.first, match.second
    over = f"{len(match.pairings)} seeds, each against its twin"
    if match.how == "unpaired":
        over = f"{len(a.runs)} and {len(b.runs)} seeds"
    within = f" (95 % interval {span(match.interval)})" if match.interval else ""
    yield f"{_apart(match)}{within}, in the mean over {over}."
    if match.overlap:
        yield (
            "The seeds deal the images anew and so share training images; the "
            "interval allows for that (Nadeau and Bengio 2003)."
        )


def _apart(match: Match) -> str:
    far = points(abs(match.difference)).lstrip("+")
    way = "above" if match.difference > 0 else "below"
    owner = f"{match.second.letter}'s accuracy is {far} points {way}"
    return f"{owner} {match.first.letter}'s"


def _of_nothing(match: Match) -> Iterator[str]:
    a, b = match.first, match.second
    yield f"{_apart(match)}."
    if len(a.runs) == len(b.runs) == 1:
        yield "No image was judged by both, so nothing can be tested."
    else:
        lone = a if len(a.runs) == 1 else b
        yield f"{lone.letter} has one seed, so no test over seeds is possible."


def _answer(match: Match, tests: int) -> Iterator[str]:
    if match.corrected is None:
        if match.how in ("seeds", "unpaired"):
            yield "The seeds do not differ at all, so no test is possible."
        return
    what = "networks" if match.how == "images" else "settings"
    of = f" (corrected for {tests} tests)" if tests > 1 else ""
    yield f"p {p_equals(match.corrected)}{of}:"
    if match.corrected < LEVEL:
        better = match.second if match.difference > 0 else match.first
        yield f"{better.letter} is better."
    else:
        yield f"equally good {what} differ so much by chance; this decides nothing."


def remarks(
    compared: Sequence[Side], found: Sequence[Match], split: str
) -> Iterator[Prose]:
    """Yield everything that a reader of the figures should know, gravest first."""
    texts = [*_split(compared, split), *_images(found), *_data(compared)]
    texts += [*_repeats(compared), *_machines(compared)]
    yield from (Prose(text=text, tone="warning") for text in texts)
    if all(match.how == "images" for match in found) and _settings_differ(compared):
        text = (
            "One run a side tells which of these trained networks is better, not which "
            "setting: another seed gives other networks. To compare settings, train "
            "each with several seeds (--seed 1, --seed 2, …) and name all the runs."
        )
        yield Prose(text=text, tone="advice")


def _settings_differ(compared: Sequence[Side]) -> bool:
    settings = [side.runs[0].run.recipe.as_dict() | {"seed": 0} for side in compared]
    return any(other != settings[0] for other in settings[1:])


def _split(compared: Sequence[Side], split: str) -> Iterator[str]:
    if split == "val":
        yield (
            "These are the validation images, by which each run chose its weights: "
            "the accuracies are optimistic."
        )


def _images(found: Sequence[Match]) -> Iterator[str]:
    """Say which images could not be paired."""
    for match in found:
        for pairing in match.pairings:
            one, two = pairing.left_out
            if one or two:
                seed = f", seed {pairing.first.seed}" if len(match.pairings) > 1 else ""
                a, b = match.first.letter, match.second.letter
                yield (
                    f"{a} and {b} share {counted(pairing.count, 'image')}{seed}; "
                    f"{one:,} only of {a} and {two:,} only of {b} are left out of "
                    f"their comparison{_relabeled(pairing.relabeled)}."
                )


def _relabeled(count: int) -> str:
    return f", {count:,} of them because their labels differ" if count else ""


def _data(compared: Sequence[Side]) -> Iterator[str]:
    if len({run.data for side in compared for run in side.runs}) > 1:
        yield "The runs did not use the same images and labels altogether."


def _repeats(compared: Sequence[Side]) -> Iterator[str]:
    for side in compared:
        for run in side.repeats:
            yield (
                f"{run.name} repeats a setting and seed of {side.letter}; it is no new "
                "evidence and is left out."
            )


def _machines(compared: Sequence[Side]) -> Iterator[str]:
    machines = {str(run.facts.get("machine")) for side in compared for run in side.runs}
    if len(machines) > 1:
        yield "The runs were made on different machines: do not compare their times."
