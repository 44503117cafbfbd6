"""Power law fit: known laws are recovered, and intervals have their coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from striate.workflows.data_curve.power_law import EXPONENTS, CurvePoint, fit_power_law

SIZES = (64, 128, 256, 512, 1024)


def law(floor, gain, exponent):
    return lambda n: floor + gain * n**-exponent


def exact(error, sizes=SIZES, test_images=100_000, wiggle=0.001):
    """Points that lie on a law, with two seeds at a hair's breadth around it."""
    return [
        CurvePoint(
            images=n,
            errors=(error(n) * (1 - wiggle), error(n) * (1 + wiggle)),
            test_images=test_images,
        )
        for n in sizes
    ]


def measured(draw, error, seeds, test_images, scatter, sizes=SIZES):
    """Points as trainings give them: the seed's own luck, then that of the test."""
    points = []
    for n in sizes:
        true = np.clip(error(n) * (1 + scatter * draw.standard_normal(seeds)), 0, 1)
        errors = draw.binomial(test_images, true) / test_images
        points.append(
            CurvePoint(images=n, errors=tuple(errors.tolist()), test_images=test_images)
        )
    return points


@settings(max_examples=40)
@given(st.floats(0, 0.1), st.floats(0.5, 3), st.floats(0.1, 1.0))
def test_a_known_law_is_recovered(floor, gain, exponent):
    error = law(floor, gain / 3, exponent)
    result = fit_power_law(exact(error))
    for n in (64, 500, 1024, 2048):
        assert result.error(n) == pytest.approx(error(n), rel=0.02, abs=0.001)
        forecast = result.forecast(n)
        assert forecast.low <= error(n) <= forecast.high
        assert 0 <= forecast.low <= forecast.error <= forecast.high <= 1


def test_same_fit_as_scipy():
    """The best law is the weighted least-squares one."""
    points = measured(np.random.default_rng(1), law(0.03, 2, 0.5), 3, 2000, 0.05)
    result = fit_power_law(points)
    weights = np.sqrt([p.binomial_variance / 3 for p in points])
    sizes, means = np.array(SIZES, float), np.array([p.mean for p in points])
    expected, _ = curve_fit(
        lambda n, a, b, c: a + b * n**-c,
        sizes,
        means,
        p0=(result.floor, result.gain, result.exponent),
        sigma=weights,
        bounds=([0, 0, EXPONENTS[0]], [1, 100, EXPONENTS[-1]]),
    )
    best = expected[0] + expected[1] * sizes ** -expected[2]
    fitted = np.array([result.error(n) for n in SIZES])
    assert fitted == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize(
    ("truth", "seeds", "test_images", "scatter"),
    [
        (law(0.0, 3, 0.5), 3, 450, 0.1),
        (law(0.05, 2, 0.5), 3, 1000, 0.05),
        (law(0.1, 20, 1.2), 2, 300, 0.05),
    ],
)
def test_interval_coverage(truth, seeds, test_images, scatter):
    """Of means measured at twice the images, at least about 95 % fall inside; without
    the open floor and exponent in it, the interval would miss a fifth of them."""
    draw, inside, narrow, rounds = np.random.default_rng(0), 0, 0, 60
    for _ in range(rounds):
        result = fit_power_law(measured(draw, truth, seeds, test_images, scatter))
        (new,) = measured(draw, truth, seeds, test_images, scatter, sizes=(2048,))
        forecast = result.forecast(2048)
        inside += forecast.low <= new.mean <= forecast.high
        spread = 1.96 * (new.binomial_variance / seeds) ** 0.5
        narrow += abs(result.error(2048) - new.mean) <= spread
    assert inside / rounds > 0.9
    assert narrow < inside


def test_what_does_not_fall_is_a_floor():
    flat = [
        CurvePoint(images=n, errors=(0.1, 0.11, 0.09), test_images=500) for n in SIZES
    ]
    result = fit_power_law(flat)
    assert result.error(10_000) == pytest.approx(0.1, abs=0.003)
    rising = [
        CurvePoint(images=n, errors=(e, e + 0.01), test_images=500)
        for n, e in zip(SIZES, (0.05, 0.06, 0.07, 0.08, 0.09), strict=True)
    ]
    assert fit_power_law(rising).gain == 0


def test_no_errors_at_all():
    """Chance is never quite none: 200 images without an error may hide one in 70."""
    result = fit_power_law(
        [CurvePoint(images=n, errors=(0.0, 0.0), test_images=200) for n in SIZES]
    )
    forecast = result.forecast(2048)
    assert forecast.error == 0
    assert 0 < forecast.high < 0.05


def test_one_seed_has_no_deviation():
    points = [CurvePoint(images=n, errors=(3 / n,), test_images=900) for n in SIZES]
    assert points[0].deviation == 0
    assert fit_power_law(points).noise == 1.0


def test_a_bad_fit_widens_the_interval():
    zigzag = exact(law(0.01, 2, 0.5))
    bent = [
        CurvePoint(
            images=p.images,
            errors=tuple(e * f for e in p.errors),
            test_images=p.test_images,
        )
        for p, f in zip(zigzag, (1, 1.4, 0.7, 1.4, 0.7), strict=True)
    ]
    straight, crooked = (
        fit_power_law(points).forecast(2048) for points in (zigzag, bent)
    )
    assert crooked.high - crooked.low > 5 * (straight.high - straight.low)
