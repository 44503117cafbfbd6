"""Conclusions and caveats of a comparison, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from striate.core.findings import Prose
from striate.core.format import count_text
from striate.metrics.intervals import Interval
from striate.report.format import MINUS
from striate.workflows.compare.groups import RunGroup
from striate.workflows.compare.result import ComparisonResult
from striate.workflows.compare.significance import MCNEMAR, NO_TEST, WELCH, PairwiseTest

LEVEL = 0.05
MAX_SENTENCES = 2  # tests with a paragraph each; of more, only a summary


def points_text(share: float) -> str:
    """Format a difference of two fractions in percentage points, with sign.

    Example:
        >>> points_text(0.0123), points_text(-0.004), points_text(0.0)
        ('+1.2', '−0.4', '0.0')
    """
    return signed_text(100 * share, 1)


def signed_text(value: float, digits: int) -> str:
    """Format a number with `+` or `−`; zero has no sign.

    Example:
        >>> signed_text(0.25, 3), signed_text(-2.0, 1), signed_text(-0.0001, 2)
        ('+0.250', '−2.0', '0.00')
    """
    text = f"{value:+.{digits}f}"
    if not float(text):
        return text[1:]
    return text.replace("-", MINUS)


def points_interval(interval: Interval | None) -> str:
    """Format an interval in percentage points.

    Example:
        >>> points_interval((-0.004, 0.022)), points_interval(None)
        ('−0.4 to +2.2', '')
    """
    if interval is None:
        return ""
    return f"{points_text(interval[0])} to {points_text(interval[1])}"


def p_text(p: float | None) -> str:
    """Format a p-value with two significant digits.

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
    """Format a p-value with `=` or `<`, to be written after the letter p.

    Example:
        >>> p_equals(0.34), p_equals(1e-9)
        ('= 0.34', '< 0.0001')
    """
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def comparison_conclusions(tests: Sequence[PairwiseTest]) -> Iterator[Prose]:
    """Yield a text for each significance test, or one summary for many tests."""
    count = sum(test.p is not None for test in tests)
    if len(tests) <= MAX_SENTENCES:
        yield from (pairwise_conclusion(test, count) for test in tests)
        return
    reference = tests[0].first.letter
    outcomes = ("Better than", "Worse than", "No significant difference from")
    letters: dict[str, list[str]] = {f"{words} {reference}": [] for words in outcomes}
    for test in tests:
        letters.setdefault(_outcome(test, reference), []).append(test.second.letter)
    listed = [f"{words}: {', '.join(some)}." for words, some in letters.items() if some]
    corrected = (
        f" The p-values are corrected for {count_text(count, 'test')} (Holm)."
        * bool(count)
    )
    yield Prose(" ".join(listed) + corrected)


def _outcome(test: PairwiseTest, reference: str) -> str:
    if test.p_holm is None:
        return "Not tested"
    if test.p_holm >= LEVEL:
        return f"No significant difference from {reference}"
    return f"{'Better' if test.difference > 0 else 'Worse'} than {reference}"


def pairwise_conclusion(test: PairwiseTest, count: int) -> Prose:
    """Describe the result of a significance test in a few sentences."""
    describe = {MCNEMAR: _over_images, NO_TEST: _not_tested}
    sentences = describe.get(test.method, _over_seeds)(test)
    return Prose(" ".join([*sentences, *_decision(test, count)]))


def _over_images(test: PairwiseTest) -> Iterator[str]:
    a, b = test.first.letter, test.second.letter
    (pairing,) = test.pairings
    paired = pairing.paired
    yield (
        f"{b} classifies {count_text(paired.gained, 'image')} correctly that {a} gets "
        f"wrong, and {paired.lost:,} wrong that {a} gets right. Difference in accuracy "
        f"on the same {count_text(pairing.count, 'image')}: "
        f"{points_text(paired.difference)} percentage points (95 % interval "
        f"{points_interval(paired.interval)})."
    )


def _over_seeds(test: PairwiseTest) -> Iterator[str]:
    a, b = test.first, test.second
    seeds = f"{count_text(len(test.pairings), 'pair')} of runs with equal seed"
    if test.method == WELCH:
        seeds = f"{len(a.runs)} and {count_text(len(b.runs), 'seed')}"
    interval = points_interval(test.interval)
    within = f" (95 % interval {interval})" if interval else ""
    yield f"{_difference(test)}{within}, on average over {seeds}."
    if test.overlap:
        yield (
            "Each seed splits the images anew, so the runs share training images. The "
            "interval accounts for this (Nadeau and Bengio 2003)."
        )


def _difference(test: PairwiseTest) -> str:
    size = points_text(abs(test.difference)).lstrip("+")
    direction = "higher" if test.difference > 0 else "lower"
    return (
        f"The accuracy of {test.second.letter} is {size} percentage points {direction} "
        f"than that of {test.first.letter}"
    )


def _not_tested(test: PairwiseTest) -> Iterator[str]:
    a, b = test.first, test.second
    yield f"{_difference(test)}."
    if len(a.runs) == len(b.runs) == 1:
        yield "The runs have no evaluated image in common, so no test is possible."
    else:
        single = a if len(a.runs) == 1 else b
        yield f"{single.letter} has only one seed, so no test over seeds is possible."


def _decision(test: PairwiseTest, count: int) -> Iterator[str]:
    if test.p_holm is None:
        if test.method != NO_TEST:
            yield "The difference is the same for all seeds, so no test is possible."
        return
    corrected = f" (corrected for {count_text(count, 'test')})" if count > 1 else ""
    yield f"p {p_equals(test.p_holm)}{corrected}:"
    if test.p_holm < LEVEL:
        better = test.second if test.difference > 0 else test.first
        yield f"{better.letter} is better."
    else:
        yield "no significant difference (at the 5 % level)."


def comparison_caveats(result: ComparisonResult) -> Iterator[Prose]:
    """Yield the limitations of the comparison, the most important first."""
    groups, tests = result.groups, result.tests
    if groups[0].runs[0].predictions.labels.multi_label:
        text = "Several labels per image: a prediction is correct if all labels are. "
        yield Prose(f"{text}The accuracy is the share of these images (exact match).")
    texts = list(_unpaired_images(tests))
    if len({run.data_hash for group in groups for run in group.runs}) > 1:
        texts.append("The runs used different images or labels.")
    texts += _duplicates(groups)
    if result.split == "val":
        text = (
            "These are validation images, and each run chose its weights by them: the "
            "accuracies are optimistic."
        )
        texts.insert(0, text)
    if len({str(run.manifest.get("machine")) for g in groups for run in g.runs}) > 1:
        texts.append("The runs used different machines: do not compare their times.")
    yield from (Prose(text, "warning") for text in texts)
    settings = [group.runs[0].run.recipe.as_dict() | {"seed": 0} for group in groups]
    settings_differ = any(other != settings[0] for other in settings)
    if settings_differ and all(test.method == MCNEMAR for test in tests):
        text = (
            "With one run each, this tests the trained models, not their settings: "
            "another seed gives another model. To compare settings, train each with "
            "several seeds (--seed 1, --seed 2, …) and name all runs."
        )
        yield Prose(text, "advice")


def _unpaired_images(tests: Sequence[PairwiseTest]) -> Iterator[str]:
    """Yield a sentence for each pair of runs that did not evaluate the same images."""
    for test in tests:
        for pairing in test.pairings:
            only_a, only_b = pairing.left_out
            if only_a or only_b:
                seed = f" (seed {pairing.first.seed})" if len(test.pairings) > 1 else ""
                a, b = test.first.letter, test.second.letter
                relabeled = f"; {pairing.relabeled:,} of them because the labels differ"
                yield (
                    f"{a} and {b} have {count_text(pairing.count, 'image')} in common"
                    f"{seed}. Left out: {only_a:,} only in {a}, {only_b:,} only in {b}"
                    f"{relabeled if pairing.relabeled else ''}."
                )


def _duplicates(groups: Sequence[RunGroup]) -> Iterator[str]:
    for group in groups:
        for run in group.duplicates:
            yield (
                f"{run.name} has the same settings and seed as a run of "
                f"{group.letter}. It adds no information and is left out."
            )
