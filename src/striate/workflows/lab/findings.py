"""Blocks of the lab: the list of cards, and the result of a card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from striate.core import findings as f
from striate.core.format import count_text
from striate.metrics.bootstrap import bca_interval
from striate.metrics.sequential import ClaimVerdict
from striate.metrics.significance import holm_correction
from striate.report.format import number
from striate.workflows.lab.card import ArmComparison, Card
from striate.workflows.lab.outcome import CardOutcome, ComparisonOutcome
from striate.workflows.lab.store import TrialResult

VERDICT_SENTENCES = {
    ClaimVerdict.HOLDS: "the claim holds here",
    ClaimVerdict.DOES_NOT_HOLD: "the claim does not hold here",
    ClaimVerdict.EQUIVALENT: "the arms are equivalent here",
    ClaimVerdict.UNDECIDED: "it cannot be told yet whether the claim holds",
}
WIDE = 50  # times the effect or the margin: an interval that says nothing


def effect_text(value: float, comparison: ArmComparison) -> str:
    """Return an effect with its unit; a logarithm is shown as a ratio.

    Example:
        >>> from striate.metrics.sequential import DecisionRule
        >>> rule = DecisionRule(goal="superior", margin=0.2)
        >>> values = {"title": "", "effect": len, "rule": rule, "expected": 1.0}
        >>> effect_text(0.254, ArmComparison(**values))
        '+0.25 points'
        >>> effect_text(math.log(2), ArmComparison(**values, unit="times", scale="log"))
        '2.00 times'
    """
    if comparison.scale == "log":
        return f"{math.exp(value):.2f} {comparison.unit}"
    return f"{value:+.2f} {comparison.unit}".strip()


def effect_interval_text(
    interval: tuple[float, float] | None, comparison: ArmComparison
) -> str:
    """Return the interval of an effect, such as `+0.10 to +0.31`.

    At the first looks the significance level is so small that the interval can be wider
    than any effect; the text is then `too early`.
    """
    if interval is None:
        return "–"
    low, high = interval
    if high - low > WIDE * max(abs(high + low), comparison.rule.margin, 1e-9):
        return "too early"
    if comparison.scale == "log":
        return f"{math.exp(low):.2f} to {math.exp(high):.2f}"
    return f"{low:+.2f} to {high:+.2f}"


def claim_prose(outcome: CardOutcome) -> f.Prose:
    """Return the verdict on a claim as a sentence, with the effect and its interval."""
    verdict = outcome.verdict
    text = f"{outcome.card.id}: {VERDICT_SENTENCES[verdict]}."
    if outcome.statement:
        return f.Prose(f"{text} {outcome.statement}", _tone(verdict))
    details = [_comparison_text(o) for o in outcome.outcomes if o.comparison.required]
    return f.Prose(" ".join([text, *details]), _tone(verdict))


def _tone(verdict: ClaimVerdict) -> str:
    """Return `good` for a claim that holds; another verdict is not a problem."""
    return "good" if verdict is ClaimVerdict.HOLDS else "plain"


def _comparison_text(outcome: ComparisonOutcome) -> str:
    comparison, decision = outcome.comparison, outcome.decision
    if not decision.n:
        return f"{comparison.title}: no seed is complete."
    title = comparison.title[:1].upper() + comparison.title[1:]
    text = f"{title}: {effect_text(decision.difference, comparison)}"
    text += f" (interval {effect_interval_text(decision.interval, comparison)}, "
    text += f"{count_text(decision.n, 'seed')}): {decision.verdict}."
    if outcome.more_seeds is not None:
        text += f" About {count_text(outcome.more_seeds, 'more seed')} would decide."
    return text


def arm_comparison_table(outcome: CardOutcome) -> f.Table:
    """Return a table of the comparisons: effect, interval, p-value and verdict."""
    columns = (
        f.Column("comparison"),
        f.Column("effect", hint="mean over seeds; positive supports the claim"),
        f.Column("interval", hint="repeated confidence interval at the last look"),
        f.Column("bootstrap", hint="95 % BCa bootstrap interval", rank=2),
        f.Column(
            "positive seeds", rank=1, hint="seeds whose effect supports the claim"
        ),
        f.Column("p", "number", key="p_value", hint="paired t-test, one look"),
        f.Column("expected", rank=3, hint="published, or plausible at this size"),
        f.Column("verdict"),
    )
    rows = tuple(_comparison_row(o) for o in outcome.outcomes)
    return f.Table(columns=columns, rows=rows)


def _comparison_row(outcome: ComparisonOutcome) -> tuple[f.Cell, ...]:
    comparison, decision = outcome.comparison, outcome.decision
    effects = outcome.effects[: decision.n] if decision.n else outcome.effects
    positive = sum(effect > 0 for effect in effects)
    return (
        comparison.title,
        effect_text(decision.difference, comparison) if effects else "–",
        effect_interval_text(decision.interval, comparison),
        effect_interval_text(
            bca_interval(effects) if len(effects) > 2 else None, comparison
        ),
        f"{positive} of {len(effects)}",
        decision.p_value,
        effect_text(comparison.expected, comparison),
        str(decision.verdict),
    )


def arm_table(card: Card, results: Sequence[TrialResult]) -> f.Table:
    """Return a table of the arms: mean ± standard deviation of each measurement."""
    columns = [f.Column("arm"), f.Column("seeds", "integer")]
    columns += [f.Column(title, key=name) for name, title in card.columns.items()]
    rows: list[tuple[f.Cell, ...]] = []
    for arm in card.arms:
        own = [r.measurements for r in results if r.arm == arm.name]
        label = f"{arm.name} ({arm.note})" if arm.note else arm.name
        cells = [_mean_text(name, own) for name in card.columns]
        rows.append((label, len(own), *cells))
    return f.Table(columns=tuple(columns), rows=tuple(rows), note="Mean ± deviation.")


def _mean_text(name: str, measurements: Sequence[Mapping[str, Any]]) -> str:
    values = [float(m[name]) for m in measurements if m.get(name) is not None]
    if not values:
        return "–"
    scale, unit = (100, " %") if name.endswith("_error") else (1, "")
    values = [scale * value for value in values]
    if len(values) < 2 or unit == "":
        spread = (
            f" ± {number(stdev(values))}" if len(values) > 1 and stdev(values) else ""
        )
        return f"{number(fmean(values))}{spread}{unit}"
    return f"{fmean(values):.2f} ± {stdev(values):.2f}{unit}"


def card_curves(card: Card, results: Sequence[TrialResult]) -> list[f.Curve]:
    """Return the charts of a card: a line for each arm, mean ± deviation over seeds."""
    curves = []
    for plot in card.plots:
        series = []
        for arm in card.arms:
            own = [r.measurements for r in results if r.arm == arm.name]
            own = [m for m in own if m.get(plot.y)]
            if own:
                series.append(_band(arm.name, own, plot.x, plot.y))
        if series:
            curves.append(
                f.Curve(
                    plot.title,
                    x_label=plot.x_label,
                    y_label=plot.y_label,
                    series=tuple(series),
                    percent_y=plot.percent_y,
                    log_x=plot.log_x,
                    log_y=plot.log_y,
                    note="Bands: ± one standard deviation over seeds.",
                )
            )
    return curves


def _band(
    name: str, measurements: Sequence[Mapping[str, Any]], x: str, y: str
) -> f.Series:
    """Return the mean of curves over seeds, as long as the shortest of them."""
    length = min(len(m[y]) for m in measurements)
    columns = [[float(m[y][i]) for m in measurements] for i in range(length)]
    means = tuple(fmean(column) for column in columns)
    deviations = [stdev(c) if len(c) > 1 else 0.0 for c in columns]
    pairs = list(zip(means, deviations, strict=True))
    return f.Series(
        name,
        tuple(float(value) for value in measurements[0][x][:length]),
        means,
        low=tuple(mean - spread for mean, spread in pairs),
        high=tuple(mean + spread for mean, spread in pairs),
    )


def card_blocks(outcome: CardOutcome) -> list[f.Block]:
    """Return the blocks that a terminal shows after a card has run."""
    card = outcome.card
    blocks: list[f.Block] = [f.Prose(f"{card.id} · {card.title}\n{card.claim}")]
    blocks += card_tables(outcome)
    return [*blocks, claim_prose(outcome)]


def card_figures(outcome: CardOutcome) -> f.Figures:
    """Return the verdict, and the effect of the first comparison, as key figures."""
    figures = [f.Figure("verdict", str(outcome.verdict))]
    main = outcome.outcomes[0] if outcome.outcomes else None
    if main is not None and main.effects:
        decision, comparison = main.decision, main.comparison
        interval = effect_interval_text(decision.interval, comparison)
        figures.append(
            f.Figure(
                "effect",
                effect_text(decision.difference, comparison),
                detail=f"interval {interval}",
            )
        )
        figures.append(f.Figure("seeds", str(decision.n)))
    return f.Figures(tuple(figures))


def card_tables(outcome: CardOutcome) -> list[f.Block]:
    """Return the tables of a card: its arms, and its comparisons if it has any."""
    tables: list[f.Block] = [arm_table(outcome.card, outcome.results)]
    return [*tables, arm_comparison_table(outcome)] if outcome.outcomes else tables


def overview_table(outcomes: Sequence[CardOutcome]) -> f.Table:
    """Return a table of the claims with effects, intervals and verdicts.

    The p-values are corrected for the number of cards (Holm 1979).
    """
    columns = (
        f.Column("card", "code"),
        f.Column("claim"),
        f.Column("verdict"),
        f.Column("effect here", rank=1),
        f.Column("interval", rank=2),
        f.Column("seeds", "integer", rank=3),
        f.Column("p (Holm)", rank=4, hint="corrected for the number of cards"),
    )
    corrected = _corrected_p_values(outcomes)
    rows = []
    for outcome in outcomes:
        main = outcome.outcomes[0] if outcome.outcomes else None
        cells: tuple[f.Cell, ...] = ("exact", "–", len(outcome.results), "–")
        if main is not None and main.effects:
            p_value = corrected.get(outcome.card.id)
            cells = (
                effect_text(main.decision.difference, main.comparison),
                effect_interval_text(main.decision.interval, main.comparison),
                main.decision.n,
                "–" if p_value is None else number(p_value),
            )
        title = outcome.card.title
        rows.append((outcome.card.id, title, str(outcome.verdict), *cells))
    note = "Effects are advantages in favor of the claim, of the first comparison."
    return f.Table(columns=columns, rows=tuple(rows), note=note)


def _corrected_p_values(outcomes: Sequence[CardOutcome]) -> dict[str, float]:
    p_values = {
        outcome.card.id: outcome.outcomes[0].decision.p_value
        for outcome in outcomes
        if outcome.outcomes
    }
    known = {name: p for name, p in p_values.items() if p is not None}
    return dict(zip(known, holm_correction(list(known.values())), strict=True))
