"""Measurements of an optimization: times in several settings, and accuracy."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from striate.core.cpu_count import cpu_count
from striate.core.errors import SettingError
from striate.core.format import count_text, duration_text
from striate.exporters.engines import Engine, torch_engine, torch_threads
from striate.exporters.network_pipeline import NetworkPipeline
from striate.exporters.parity import PROBABILITY_TOLERANCE
from striate.exporters.probabilities import ProbabilityMap
from striate.exporters.race import ROUNDS, PreparedRace, RaceTimes, prepare_race
from striate.metrics.paired import PairedCounts
from striate.workflows.optimize.engines import Entrant
from striate.workflows.optimize.images import CALIBRATION_IMAGES

LARGE_BATCH = 16
FEWEST_IMAGES = 100  # validation images that a time budget must leave
WARM_UP = 3  # calls of each engine before its rounds
START_SECONDS = 1.0  # to convert the network and to start an engine
THREADS_MATTER = 0.01  # seconds of one image from which on threads are worth a test
ENGINES = 6  # of a race, at most


@dataclass(frozen=True)
class RaceSetting:
    """Number of images in a batch, and number of threads."""

    batch: int
    threads: int

    @property
    def title(self) -> str:
        """Return the setting in words."""
        threads = count_text(self.threads, "thread")
        return f"{count_text(self.batch, 'image')}, {threads}"


FIRST = RaceSetting(1, 1)  # decides


def race_settings(seconds: float = 1.0) -> list[RaceSetting]:
    """Return the settings in the order of their importance.

    Several threads are measured only if they matter: if one image takes some time.

    Args:
        seconds: Time of one image in PyTorch with one thread.

    Example:
        >>> race_settings(0.001)
        [RaceSetting(batch=1, threads=1), RaceSetting(batch=16, threads=1)]
    """
    several = cpu_count() > 1 and seconds >= THREADS_MATTER
    threads = [1, cpu_count()] if several else [1]
    return [RaceSetting(batch, n) for n in threads for batch in (1, LARGE_BATCH)]


class TimeBudget:
    """Time that an optimization may take."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def require(self, pipeline: NetworkPipeline, image: np.ndarray) -> None:
        """Measure the network once, and check that one race is possible.

        Raises:
            SettingError: The budget is too small; the message says what is needed.
        """
        engine = torch_engine(pipeline)
        with torch_threads(1):
            race = prepare_race({"pytorch": lambda: engine(image)})
        call = race.seconds["pytorch"]
        images = CALIBRATION_IMAGES + ENGINES * FEWEST_IMAGES
        needed = ENGINES * START_SECONDS + images * call
        needed += ENGINES * ((ROUNDS + WARM_UP) * race.round_seconds)
        if needed > self.left:
            what = f"the time budget of {duration_text(self.seconds)} is too small: "
            what += f"one race takes about {duration_text(needed)}"
            fix = f"use --budget {int(2 * needed) + 1}s"
            raise SettingError(what, where="--budget", fix=fix)


@dataclass(frozen=True, kw_only=True)
class RaceResults:
    """Times of all engines by setting, and what the budget did not allow."""

    times: dict[RaceSetting, dict[str, RaceTimes]]
    skipped: tuple[str, ...]  # titles of settings
    engines: dict[str, Engine]  # by name, with one thread
    seconds: float  # elapsed time of one image in all engines together


def race_engines(
    entrants: Sequence[Entrant], image: np.ndarray, budget: TimeBudget
) -> RaceResults:
    """Return the times of all engines in all settings that the budget allows.

    The first setting always runs.

    Args:
        entrants: Engines.
        image: An image, (1, h, w, C) uint8.
        budget: Time that is left.
    """
    single = engines = start_engines(entrants, 1)
    race, times = measure_setting(engines, image, FIRST)
    seconds = sum(race.seconds.values())
    results, skipped, threads = {FIRST: times}, [], 1
    for setting in race_settings(times[entrants[0].name].cpu_seconds)[1:]:
        if (ROUNDS + WARM_UP) * setting.batch * seconds > budget.left / 2:
            skipped.append(setting.title)
            continue
        if setting.threads != threads:
            engines, threads = start_engines(entrants, setting.threads), setting.threads
        _, results[setting] = measure_setting(engines, image, setting)
    return RaceResults(
        times=results, skipped=tuple(skipped), engines=single, seconds=seconds
    )


def measure_setting(
    engines: Mapping[str, Engine], image: np.ndarray, setting: RaceSetting
) -> tuple[PreparedRace, dict[str, RaceTimes]]:
    """Return the warmed-up race of all engines in one setting, and its times."""
    batch = np.repeat(image, setting.batch, axis=0)
    with torch_threads(setting.threads):
        race = prepare_race({k: partial(run, batch) for k, run in engines.items()})
        return race, race.run()


def start_engines(entrants: Sequence[Entrant], threads: int) -> dict[str, Engine]:
    """Return all engines by name."""
    return {entrant.name: entrant.start(threads) for entrant in entrants}


@dataclass(frozen=True, kw_only=True)
class AccuracyTest:
    """An engine and PyTorch on the same images."""

    pair: PairedCounts
    same_class: int  # images with the same answer
    max_difference: float  # largest difference of a probability

    @property
    def exact(self) -> bool:
        """Return whether the probabilities are equal but for rounding."""
        return self.max_difference <= PROBABILITY_TOLERANCE


def compare_answers(
    engines: Mapping[str, Engine],
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: ProbabilityMap,
) -> dict[str, AccuracyTest]:
    """Return the accuracy of each engine, compared with the first one.

    Shapes:
        images: (N, h, w, C) uint8; labels: (N,) or (N, classes) multi-hot
    """
    with torch_threads(1):
        probs = {
            name: np.concatenate(
                [
                    run(images[i : i + LARGE_BATCH])
                    for i in range(0, len(images), LARGE_BATCH)
                ]
            )
            for name, run in engines.items()
        }
    return _compared_answers(probs, labels, probabilities)


def _compared_answers(
    probs: Mapping[str, np.ndarray], labels: np.ndarray, settings: ProbabilityMap
) -> dict[str, AccuracyTest]:
    answers = {name: _answers(values, settings) for name, values in probs.items()}
    first, *_ = answers
    correct = {name: _equal(values, labels) for name, values in answers.items()}
    return {
        name: AccuracyTest(
            pair=PairedCounts.of(correct[first], correct[name]),
            same_class=int(_equal(answers[name], answers[first]).sum()),
            max_difference=_largest_difference(probs[name], probs[first]),
        )
        for name in probs
    }


def _answers(probs: np.ndarray, settings: ProbabilityMap) -> np.ndarray:
    """Return class indices, or for several labels which classes are predicted."""
    if not settings.multi_label:
        return np.asarray(probs.argmax(axis=1))
    limits = np.array(settings.thresholds or [0.5] * probs.shape[1])
    return np.asarray(probs >= limits)


def _equal(answers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each image whether the answers are equal; (N,) bool."""
    equal = np.asarray(answers == others.astype(answers.dtype))
    return np.asarray(equal.reshape(len(equal), -1).all(axis=1))


def _largest_difference(probs: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference; infinity for values that are not numbers."""
    difference = np.abs(probs.astype(np.float64) - expected)
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
