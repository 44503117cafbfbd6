"""Recall of planted label errors by `data check --labels`, digits and Fashion-MNIST.

One label in twenty is changed to a random other class. Claim (row D4): at least 80 % of
the changed labels are in the top 10 % of the ranking. Baselines with the same
probabilities: ranking by the label's own probability, lowest first; and the rankings
and filters of cleanlab, if cleanlab is installed. The settings were chosen on training
images; this benchmark uses the 10,000 test images of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from record import save
from striate.core.seeds import numpy_generator
from striate.data.check.check import check_dataset
from striate.data.check.label_errors import ConfidentLearning
from striate.data.find_source import find_source
from striate.data.sources.source import Source, from_arrays
from striate.workflows.data_check.label_errors import find_label_errors

SHARE = 0.05
TOPS = (0.05, 0.10)


def digits() -> Source:
    """Return the dataset of all 1,797 digits."""
    return find_source("digits")


def fashion() -> Source:
    """Return the dataset of the 10,000 test images of Fashion-MNIST."""
    whole = find_source("fashion-mnist")
    rows = [i for i, record in enumerate(whole.records) if record.split == "test"]
    assert whole.arrays is not None
    labels = [whole.records[i].label for i in rows]
    return from_arrays("fashion", whole.arrays[rows], labels, classes=whole.labels)


SETS: Mapping[str, Callable[[], Source]] = {"digits": digits, "fashion": fashion}


def flipped(source: Source, seed: int) -> tuple[Source, np.ndarray]:
    """Return the dataset with some wrong labels, and an (N,) mask of these labels."""
    assert source.arrays is not None
    chance = numpy_generator(seed, "flips")
    labels = [record.label for record in source.records]
    at = chance.choice(len(labels), round(SHARE * len(labels)), replace=False)
    for i in at:
        others = [name for name in source.labels.names if name != labels[i]]
        labels[i] = str(chance.choice(others))
    changed = np.zeros(len(labels), bool)
    changed[at] = True
    planted = from_arrays("planted", source.arrays, labels, classes=source.labels)
    return planted, changed


def orders(result: ConfidentLearning) -> dict[str, np.ndarray]:
    """Return the image ranking of each method, most suspicious label first."""
    by_method = {
        "striate": result.ranking_order,
        "own probability": np.argsort(result.self_confidence, kind="stable"),
    }
    if find_spec("cleanlab"):
        rank = import_module("cleanlab.rank")
        for way in ("normalized_margin", "confidence_weighted_entropy"):
            score = rank.get_label_quality_scores(
                result.labels, result.probs.astype(float), method=way
            )
            by_method[f"cleanlab {way}"] = np.argsort(score, kind="stable")
    return by_method


def sets_suspected(result: ConfidentLearning) -> dict[str, np.ndarray]:
    """Return the labels that each method suspects, as (N,) masks."""
    suspected = np.zeros(len(result.labels), bool)
    suspected[result.suspected] = True
    by_method = {
        "striate": suspected,
        "most probable class": result.probs.argmax(1) != result.labels,
    }
    if find_spec("cleanlab"):
        find = import_module("cleanlab.filter").find_label_issues
        for way in ("confident_learning", "prune_by_noise_rate", "both"):
            probs = result.probs.astype(float)
            by_method[f"cleanlab {way}"] = find(
                result.labels, probs, filter_by=way, n_jobs=1
            )
    return by_method


def table(name: str, seeds: int) -> str:
    """Measure one dataset for all seeds and return the result tables."""
    source = SETS[name]()
    tops: dict[str, list[list[float]]] = {}
    believed: dict[str, list[tuple[float, float, float]]] = {}
    seconds, estimates, agreements = [], [], []
    for seed in range(seeds):
        planted, changed = flipped(source, seed)
        checked = find_label_errors(check_dataset(planted, near=False))
        label_errors = checked.label_errors
        assert label_errors is not None
        result = label_errors.analysis
        seconds.append(label_errors.seconds)
        estimates.append(result.estimate)
        agreements.append(result.agreement)
        for way, order in orders(result).items():
            cut = [changed[order[: int(top * len(order))]].sum() for top in TOPS]
            tops.setdefault(way, []).append([n / changed.sum() for n in cut])
        for way, mask in sets_suspected(result).items():
            hits = (mask & changed).sum()
            row = (mask.sum(), hits / max(1, mask.sum()), hits / changed.sum())
            believed.setdefault(way, []).append(row)
        print(name, seed, tops["striate"][-1], f"{seconds[-1]:.1f} s", flush=True)
    title = f"## {name}: {len(changed):,} images, {changed.sum()} labels changed\n"
    end = (
        f"\nn = {seeds} seeds. {label_errors.folds} networks, {label_errors.epochs} "
        f"epochs, {statistics.median(seconds):.0f} s in the median "
        f"({max(seconds):.0f} s at worst). They agree with {_mean(agreements)} of the\n"
        f"labels as given; {statistics.mean(estimates):,.0f} are estimated wrong.\n"
    )
    return "\n".join([title, *rankings(tops), *beliefs(believed), end])


def rankings(tops: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    """Return a table: share of changed labels in the top 5 % and 10 %, by method."""
    lines = ["| ranking | flips in the top 5 % | in the top 10 % | worst seed |"]
    lines += ["|---|---|---|---|"]
    for way, shares in tops.items():
        five, ten = zip(*shares, strict=True)
        worst = f"{100 * min(ten):.1f} %"
        lines.append(f"| {way} | {_mean(five)} | {_mean(ten)} | {worst} |")
    return lines


def beliefs(believed: Mapping[str, Sequence[tuple[float, float, float]]]) -> list[str]:
    """Return a table: number, precision and recall of suspected labels, by method."""
    lines = ["\n| believed wrong | labels | of them changed | of the changed ones |"]
    lines += ["|---|---|---|---|"]
    for way, rows in believed.items():
        count, precision, recall = zip(*rows, strict=True)
        mean = statistics.mean(count)
        lines.append(f"| {way} | {mean:,.0f} | {_mean(precision)} | {_mean(recall)} |")
    return lines


def _mean(shares: Sequence[float]) -> str:
    return f"{100 * statistics.mean(shares):.1f} %"


def main() -> None:
    """Measure the datasets given as arguments, or both; print and save results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)}")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    body = "\n".join(table(name, options.seeds) for name in options.sets or SETS)
    print(body)
    save("-".join(["labels", *options.sets]), "Planted label flips", body)


if __name__ == "__main__":
    main()
