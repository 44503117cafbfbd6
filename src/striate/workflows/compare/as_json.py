"""Conversion of a comparison to a JSON-serializable dict."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from striate.workflows.compare.conclusion import comparison_caveats
from striate.workflows.compare.evaluated_run import EvaluatedRun
from striate.workflows.compare.groups import RunGroup
from striate.workflows.compare.pairing import FlippedImage, Pairing, flipped_images
from striate.workflows.compare.result import ComparisonResult
from striate.workflows.compare.significance import PairwiseTest


def comparison_dict(result: ComparisonResult) -> dict[str, Any]:
    """Return a comparison as a JSON-serializable dict."""
    return {
        "split": result.split,
        "groups": [_group(group) for group in result.groups],
        "setting_differences": [asdict(each) for each in result.setting_differences],
        "tests": [_test(test) for test in result.tests],
        "caveats": [prose.text for prose in comparison_caveats(result)],
    }


def _group(group: RunGroup) -> dict[str, Any]:
    return {
        "letter": group.letter,
        "runs": [_run(run) for run in group.runs],
        "duplicates": [str(run.run.path) for run in group.duplicates],
    }


def _run(run: EvaluatedRun) -> dict[str, Any]:
    names = ("parameters", "seconds", "images_per_second", "best_epoch", "epochs")
    return {
        "run": str(run.run.path),
        "seed": run.seed,
        "score": asdict(run.score),
        "macs": run.macs,
        **{name: run.manifest.get(name) for name in names},
    }


def _fields(item: object, *names: str) -> dict[str, Any]:
    """Return the named attributes of an object as a dict."""
    return {name: getattr(item, name) for name in names}


def _test(test: PairwiseTest) -> dict[str, Any]:
    return {
        "first": test.first.letter,
        "second": test.second.letter,
        **_fields(test, "method", "difference", "interval", "p", "p_holm", "overlap"),
        "pairings": [_pairing(pairing) for pairing in test.pairings],
        "flipped_images": [_flipped(image) for image in flipped_images(test.pairings)],
    }


def _pairing(pairing: Pairing) -> dict[str, Any]:
    paired, balanced, loss = pairing.paired, pairing.balanced, pairing.loss
    return {
        "runs": [str(pairing.first.run.path), str(pairing.second.run.path)],
        "images": pairing.count,
        "left_out": pairing.left_out,
        "relabeled": pairing.relabeled,
        **asdict(paired),
        "difference": paired.difference,
        "interval": paired.interval,
        "p": paired.p_value,
        "balanced_accuracy": {"difference": balanced[0], "interval": balanced[1]},
        "loss": {"difference": loss[0], "interval": loss[1]},
        "classes": {
            name: asdict(n) | {"difference": n.difference, "p": n.p_value}
            for name, n in pairing.classes
        },
    }


def _flipped(image: FlippedImage) -> dict[str, Any]:
    return _fields(
        image, "image_path", "true", "pred", "confidence", "correct", "pairs"
    )
