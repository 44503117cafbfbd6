"""Group-sequential decisions: published bounds, false positive rate, power."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from striate.metrics.bootstrap import bca_interval, probability_of_superiority
from striate.metrics.power import decision_rate, paired_deviation, seeds_needed
from striate.metrics.random_effects import pool_effects
from striate.metrics.sequential import (
    LOOKS,
    ClaimVerdict,
    DecisionRule,
    decide,
    obrien_fleming_levels,
    repeated_interval,
)

SUPERIOR = DecisionRule(goal="superior", margin=0.2)
NOT_INFERIOR = DecisionRule(goal="not_inferior", margin=0.5)


@pytest.mark.parametrize(
    ("looks", "bounds"),
    [
        # Boundaries of the Lan–DeMets O'Brien–Fleming function as R's ldbounds and
        # Proschan, Lan and Wittes 2006 print them.
        ((1, 2, 3, 4), (4.3326, 2.9631, 2.3590, 2.0141)),
        ((1, 2, 3, 4, 5), (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        ((1, 2), (2.9626, 1.9686)),
        ((1,), (1.9600,)),
    ],
)
def test_bounds_are_those_of_published_tables(looks, bounds):
    levels = obrien_fleming_levels(looks)
    z = [-stats.norm.ppf(level / 2) for level in levels]
    assert z == pytest.approx(bounds, abs=3e-3)


def test_the_levels_keep_alpha_by_simulation():
    """Random walks cross one of the bounds in 5 % of the cases."""
    rng = np.random.default_rng(0)
    walks = rng.standard_normal((100_000, LOOKS[-1])).cumsum(1)
    bounds = [-stats.norm.ppf(level / 2) for level in obrien_fleming_levels()]
    crossed = np.zeros(len(walks), bool)
    for n, bound in zip(LOOKS, bounds, strict=True):
        crossed |= abs(walks[:, n - 1]) / math.sqrt(n) > bound
    assert crossed.mean() == pytest.approx(0.05, abs=0.003)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_the_interval_is_that_of_a_t_test(values):
    values = [*values, values[0] + 1.0]  # never all equal
    interval = repeated_interval(values, 0.05)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval == pytest.approx(tuple(expected), rel=1e-6, abs=1e-9)


def test_each_verdict():
    def at(*values):
        return decide(values, SUPERIOR).verdict

    assert at(1.0, 1.01, 0.99, 1.0, 1.0) is ClaimVerdict.HOLDS
    assert at(-1.0, -1.01, -0.99, -1.0, -1.0) is ClaimVerdict.DOES_NOT_HOLD
    assert at(0.01, -0.01, 0.0, 0.01, -0.005) is ClaimVerdict.EQUIVALENT
    assert at(3.0, -2.0, 1.0, 0.5, -1.0) is ClaimVerdict.UNDECIDED
    assert at() is ClaimVerdict.UNDECIDED
    assert decide([0.0] * 2, SUPERIOR).n == 2


def test_non_inferiority_needs_only_the_lower_end():
    values = [-0.1, 0.0, -0.2, -0.1, -0.05] * 4
    assert decide(values, NOT_INFERIOR).verdict is ClaimVerdict.HOLDS
    worse = [value - 1.0 for value in values]
    assert decide(worse, NOT_INFERIOR).verdict is ClaimVerdict.DOES_NOT_HOLD


def test_a_decision_does_not_change_with_later_seeds():
    first = [1.0, 1.01, 0.99, 1.0, 1.02]
    assert decide(first, SUPERIOR) == decide([*first, *[-50.0] * 15], SUPERIOR)


def test_results_count_only_at_the_looks():
    """Seeds between two looks give the decision of the earlier look."""
    values = list(np.random.default_rng(1).normal(0.1, 1, 20))
    assert decide(values[:7], SUPERIOR) == decide(values[:5], SUPERIOR)


def test_equal_differences_decide_if_they_are_no_accident():
    """Three equal differences are not enough, even if their deviation is zero."""
    early = decide([0.4] * 9, SUPERIOR)
    assert (early.verdict, early.n) == (ClaimVerdict.UNDECIDED, 5)
    assert early.interval is None
    decision = decide([0.4] * 10, SUPERIOR)
    assert decision.verdict is ClaimVerdict.HOLDS
    assert decision.interval == pytest.approx((0.4, 0.4))
    assert decision.p_value is None
    assert decide([0.0] * 10, SUPERIOR).verdict is ClaimVerdict.EQUIVALENT
    assert decide([-0.4] * 10, SUPERIOR).verdict is ClaimVerdict.DOES_NOT_HOLD
    no_margin = DecisionRule(goal="superior", margin=0.0)
    assert decide([0.0] * 20, no_margin).verdict is ClaimVerdict.UNDECIDED


@given(st.integers(2, 40), st.floats(1e-6, 0.5), st.floats(-50, 50))
def test_equal_differences_have_an_interval_if_the_sign_test_rejects(n, level, value):
    p_value = stats.binomtest(n, n).pvalue
    if not math.isclose(p_value, level):
        assert (repeated_interval([value] * n, level) is not None) == (p_value < level)


# Differences without an effect that are often equal: of few test images, or of steps.
COARSE = ((-1.0, 1.0), (-1.0, 0.0, 1.0), (-1.0, 0.0, 0.0, 0.0, 1.0), (-3.0, -1.0, 1, 3))


@pytest.mark.parametrize("values", COARSE)
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_coarse_differences_without_effect_hold_in_at_most_five_percent(values, margin):
    rule = DecisionRule(goal="superior", margin=margin)
    claims = np.random.default_rng(5).choice(values, (1000, LOOKS[-1]))
    holds = sum(decide(list(c), rule).verdict is ClaimVerdict.HOLDS for c in claims)
    assert holds <= 50


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["superior", "not_inferior"])
def test_false_positive_rate_of_many_claims_at_the_edge(goal):
    """At the edge of the claim, about 2.5 % hold: one side of alpha."""
    rule = DecisionRule(goal=goal, margin=0.5)
    edge = 0.0 if goal == "superior" else -0.5
    claims = np.random.default_rng(6).normal(edge, 3.0, (40_000, LOOKS[-1]))
    holds = sum(decide(list(c), rule).verdict is ClaimVerdict.HOLDS for c in claims)
    assert holds / len(claims) == pytest.approx(0.025, abs=0.004)


@pytest.mark.parametrize("looks", [LOOKS, (16, 20), (3, 5), (3, 4), (10, 11, 12)])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_levels_spend_what_the_function_allows(looks, alpha):
    """Crossing probability until each look, by SciPy's multivariate normal integral."""
    levels = np.array(obrien_fleming_levels(looks, alpha))
    bounds = stats.norm.isf(levels / 2)
    ratio = np.divide.outer(looks, looks)
    correlation = np.sqrt(np.minimum(ratio, 1 / ratio))
    for i, look in enumerate(looks, 1):
        inside = stats.multivariate_normal(cov=correlation[:i, :i], seed=0).cdf(
            bounds[:i], lower_limit=-bounds[:i]
        )
        spent = 4 * stats.norm.sf(
            stats.norm.isf(alpha / 4) / math.sqrt(look / looks[-1])
        )
        assert 1 - inside == pytest.approx(spent, abs=2e-4)


def test_differences_that_are_not_numbers_decide_nothing():
    decision = decide([math.nan] * 20, SUPERIOR)
    assert decision.verdict is ClaimVerdict.UNDECIDED
    assert decision.p_value is None
    assert seeds_needed(math.nan, 0.1, SUPERIOR) is None
    assert seeds_needed(0.4, math.nan, SUPERIOR) is None


def test_forecast_without_deviation_is_the_look_that_decides():
    assert seeds_needed(0.4, 0.0, SUPERIOR) == 10
    assert seeds_needed(0.0, 0.0, DecisionRule(goal="superior", margin=0.0)) is None
    short = DecisionRule(goal="superior", margin=0.2, looks=(3, 5))
    assert seeds_needed(0.4, 0.0, short) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        *({"goal": "best"}, {"looks": (5, 3)}, {"looks": ()}),
        *({"margin": -1.0}, {"margin": math.inf}, {"margin": math.nan}),
        *({"alpha": 0.0}, {"alpha": 1.0}),
    ],
)
def test_a_wrong_rule_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must"):
        DecisionRule(**{"goal": "superior", "margin": 0.2, **wrong})


def test_of_a_thousand_claims_without_effect_at_most_five_percent_hold():
    rng = np.random.default_rng(2)
    claims = rng.normal(0.0, 0.3, (1000, LOOKS[-1]))
    held = sum(decide(list(c), SUPERIOR).verdict is ClaimVerdict.HOLDS for c in claims)
    assert held <= 50


def test_the_forecast_number_of_seeds_decides():
    """20 claims with an effect: at the forecast n, at least 80 % are decided."""
    rng = np.random.default_rng(3)
    for deviation in np.linspace(0.1, 0.5, 20):
        seeds = seeds_needed(0.4, float(deviation), SUPERIOR)
        assert seeds is not None
        samples = rng.normal(0.4, deviation, (200, seeds))
        rule = SUPERIOR
        if seeds > LOOKS[-1]:
            rule = DecisionRule(goal="superior", margin=0.2, looks=(*LOOKS, seeds))
        verdicts = [decide(list(sample), rule).verdict for sample in samples]
        decided = sum(v is ClaimVerdict.HOLDS for v in verdicts)
        assert decided >= 0.8 * 200 - 17  # 99.9 % of the samples of 200


def test_more_seeds_are_needed_for_more_noise():
    needed = [seeds_needed(0.4, d, SUPERIOR) for d in (0.1, 0.3, 0.6)]
    assert needed == sorted(needed)
    assert seeds_needed(0.4, 50.0, SUPERIOR) is None
    assert decision_rate(0.4, 0.01, SUPERIOR, 20) == 1.0


def test_deviation_of_two_errors():
    assert paired_deviation(0.08, 60_000) == pytest.approx(math.sqrt(0.08 / 60_000))


def test_bca_agrees_with_the_t_interval_of_many_values():
    values = list(np.random.default_rng(4).normal(1.0, 2.0, 400))
    low, high = bca_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx(tuple(expected), abs=0.03)
    assert bca_interval([1.0, 1.0, 1.0]) is None
    assert bca_interval([1.0, 2.0]) is None


def test_probability_of_superiority_counts_ties_half():
    assert probability_of_superiority([1.0, -1.0, 0.0, 0.0]) == 0.5


def test_pooled_effects_of_the_bcg_trials():
    """The 13 trials of BCG vaccination (Colditz et al. 1994), as metafor pools them."""
    effects = [-0.8893, -1.5854, -1.3481, -1.4416, -0.2175, -0.7861, -1.6209]
    effects += [0.0120, -0.4694, -1.3713, -0.3394, 0.4459, -0.0173]
    variances = [0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230]
    variances += [0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714]
    pooled = pool_effects(effects, np.sqrt(variances).tolist())
    assert pooled.difference == pytest.approx(-0.7141, abs=2e-3)
    assert pooled.tau2 == pytest.approx(0.3088, abs=2e-3)
    assert pooled.i2 == pytest.approx(0.9212, abs=2e-3)
    assert pooled.sites == 13
    # Knapp and Hartung: the t-interval of a weighted regression on a constant.
    weights = 1 / (np.array(variances) + pooled.tau2)
    _, covariance = np.polyfit(range(13), effects, 0, w=np.sqrt(weights), cov=True)
    half = stats.t.isf(0.025, 12) * math.sqrt(covariance.item())
    expected = pooled.difference - half, pooled.difference + half
    assert pooled.interval == pytest.approx(expected, abs=1e-9)
