"""Parity: whether an exported file gives the same answers as the network.

The stages of both pipelines are compared in their order (decode, resize, normalize,
layers, logits, probabilities), so that the first stage that differs can be named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from striate.core.format import count_text
from striate.exporters.network_pipeline import NetworkPipeline, ParitySample

LOGITS_TOLERANCE = 1e-4  # for logits up to 1; relative for larger ones
PROBABILITY_TOLERANCE = 1e-4
BATCH_SIZES = (1, 2, 5, 17)  # sizes for which a file is tried


class ParityTarget(Protocol):
    """An exported file as a function from images to the values of its stages."""

    # allowed difference of normalized values, relative to the largest; 0: bit-equal
    normalize_tolerance: float

    @property
    def classes(self) -> Sequence[str]:
        """Return the class names in the order of the outputs."""

    @property
    def input_kind(self) -> str:
        """Return what the file takes: image, resized or tensor."""

    def run(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the values of all stages that the file can show, by stage name.

        Shapes:
            image: (N, H, W, C) uint8 of any size; resized: (N, h, w, C) uint8; tensor:
            (N, C, h, w) float32
        """

    def run_layers(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the output of each layer by its dotted name; empty if unknown."""


@dataclass(frozen=True, kw_only=True)
class StageParity:
    """Comparison of one stage."""

    stage: str
    images: int
    differing: int  # number of images with a difference above the tolerance
    max_difference: float
    tolerance: float  # 0 for bit-equal values
    detail: str = ""  # first differing image or layer, and the values

    @property
    def equal(self) -> bool:
        """Return whether no image differs by more than the tolerance."""
        return self.differing == 0


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Comparison of all stages, in their order."""

    stages: tuple[StageParity, ...]
    images: int
    same_class: int  # images with the same most probable class
    ties: int = 0  # images whose two highest logits are equal within the tolerance
    skipped: tuple[str, ...] = field(default=())  # stages that the file does not show

    @property
    def first_difference(self) -> StageParity | None:
        """Return the first stage that differs; None if all are equal."""
        return next((stage for stage in self.stages if not stage.equal), None)

    @property
    def passed(self) -> bool:
        """Return whether all stages and all predicted classes are equal."""
        return self.first_difference is None

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values (`certificate.json`)."""
        stages = [{**asdict(stage), "equal": stage.equal} for stage in self.stages]
        counts = {key: getattr(self, key) for key in ("images", "same_class", "ties")}
        return {"passed": self.passed, **counts, "stages": stages}


def check_parity(
    target: ParityTarget,
    pipeline: NetworkPipeline,
    samples: Sequence[ParitySample],
    *,
    tolerance: float = LOGITS_TOLERANCE,
) -> ParityReport:
    """Compare an exported file with the network on images.

    Args:
        target: The exported file.
        pipeline: The network with its preprocessing.
        samples: At least one image.
        tolerance: Largest allowed difference of the logits; for logits above 1 it is
            multiplied by the largest absolute logit.
    """
    resized = pipeline.resized(samples)
    x = pipeline.normalized(resized)
    logits = pipeline.logits(x)
    probs = pipeline.probabilities(logits)
    values = _run(target, samples, resized, x)
    scaled = tolerance * max(1.0, float(np.abs(logits).max()))
    top = max(1.0, float(np.abs(x).max()))
    comparison = _Comparison(samples, values)
    stages = [
        _classes(target, pipeline),
        _decoding(samples),
        comparison.stage("resize", "resized", resized, 0.0),
        comparison.stage(
            "normalize", "normalized", x, target.normalize_tolerance * top
        ),
        comparison.stage("logits", "logits", logits, scaled),
        comparison.stage("probabilities", "probabilities", probs, max(tolerance, 1e-6)),
    ]
    shown = [stage for stage in stages if stage is not None]
    first = next((stage for stage in shown if not stage.equal), None)
    if first is not None and first.stage == "logits":
        stages.insert(4, _first_layer(target, pipeline, samples, x))
    stages.append(_batches(target, pipeline, samples, scaled))
    same, ties = _same_class(values, logits, scaled)
    return ParityReport(
        stages=tuple(stage for stage in stages if stage is not None),
        images=len(samples),
        same_class=same,
        ties=ties,
        skipped=tuple(comparison.skipped),
    )


def _input_of(
    target: ParityTarget, sample: ParitySample, resized: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Return the input of one image for the file, with a batch dimension."""
    kinds = {"image": sample.pixels, "resized": resized, "tensor": x}
    return kinds[target.input_kind][None]


def _run(
    target: ParityTarget,
    samples: Sequence[ParitySample],
    resized: np.ndarray,
    x: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the values of the file's stages for all images, run one by one."""
    rows = [
        target.run(_input_of(target, *each))
        for each in zip(samples, resized, x, strict=True)
    ]
    return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}


class _Comparison:
    """Compares the stages of a file, and notes those that it does not show."""

    def __init__(
        self, samples: Sequence[ParitySample], values: Mapping[str, np.ndarray]
    ) -> None:
        self._samples = samples
        self._values = values
        self.skipped: list[str] = []

    def stage(
        self, stage: str, key: str, expected: np.ndarray, tolerance: float
    ) -> StageParity | None:
        """Compare one stage; return None if the file does not show it."""
        if key not in self._values:
            self.skipped.append(stage)
            return None
        actual = self._values[key]
        if actual.shape != expected.shape:
            detail = f"shape {actual.shape}, expected {expected.shape}"
            return _failed(stage, len(self._samples), tolerance, detail)
        return compare_values(stage, actual, expected, tolerance, self._names)

    def _names(self, index: int) -> str:
        return self._samples[index].path


def _failed(stage: str, images: int, tolerance: float, detail: str) -> StageParity:
    return StageParity(
        stage=stage,
        images=images,
        differing=images,
        max_difference=float("inf"),
        tolerance=tolerance,
        detail=detail,
    )


def compare_values(
    stage: str,
    actual: np.ndarray,
    expected: np.ndarray,
    tolerance: float,
    name: Callable[[int], str],
) -> StageParity:
    """Compare values image by image; values that are not numbers always differ.

    Args:
        stage: Name of the stage.
        actual: Values of the file, (images, …).
        expected: Values of the network, of the same shape.
        tolerance: Largest allowed difference.
        name: Function from the index of an image to its name.
    """
    count = len(expected)
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    difference = np.nan_to_num(difference.reshape(count, -1), nan=np.inf)
    worst = difference.max(axis=1, initial=0.0)
    bad = worst > tolerance
    detail = ""
    if bad.any():
        index = int(bad.argmax())
        place = int(difference[index].argmax())
        a, e = (v[index].reshape(-1)[place] for v in (actual, expected))
        detail = f"{name(index)}: {a:.6g}, expected {e:.6g}"
    return StageParity(
        stage=stage,
        images=count,
        differing=int(bad.sum()),
        max_difference=float(worst.max(initial=0.0)),
        tolerance=tolerance,
        detail=detail,
    )


def _classes(target: ParityTarget, pipeline: NetworkPipeline) -> StageParity:
    """Compare the class names and their order."""
    names, expected = tuple(target.classes), pipeline.probabilities.classes
    wrong = [
        f"output {i}: {a!r}, expected {b!r}"
        for i, (a, b) in enumerate(zip(names, expected, strict=False))
        if a != b
    ]
    if len(names) != len(expected):
        wrong.insert(0, f"{len(names)} names, expected {len(expected)}")
    return StageParity(
        stage="classes",
        images=0,
        differing=len(wrong),
        max_difference=0.0,
        tolerance=0.0,
        detail=wrong[0] if wrong else "",
    )


def _decoding(samples: Sequence[ParitySample]) -> StageParity | None:
    """Compare the pixels of two decoders, where there are two."""
    pairs = [(s, s.other_pixels) for s in samples if s.other_pixels is not None]
    if not pairs:
        return None
    wrong = []
    for sample, other in pairs:
        if other.shape != sample.pixels.shape:
            sizes = " and ".join(str(p.shape[:2]) for p in (other, sample.pixels))
            wrong.append(f"{sample.path}: sizes {sizes}")
        elif not np.array_equal(other, sample.pixels):
            wrong.append(f"{sample.path}: other pixel values")
    return StageParity(
        stage="decode",
        images=len(pairs),
        differing=len(wrong),
        max_difference=0.0,
        tolerance=0.0,
        detail=wrong[0] if wrong else "",
    )


def _first_layer(
    target: ParityTarget,
    pipeline: NetworkPipeline,
    samples: Sequence[ParitySample],
    x: np.ndarray,
) -> StageParity | None:
    """Return the first layer whose output differs, on the first image."""
    resized = pipeline.resized(samples[:1])
    outputs = target.run_layers(_input_of(target, samples[0], resized[0], x[0]))
    for layer, expected in pipeline.layers(x[:1]):
        actual = outputs.get(layer)
        if actual is None or actual.shape != expected.shape:
            continue
        tolerance = LOGITS_TOLERANCE * max(1.0, float(np.abs(expected).max()))
        stage = compare_values(
            "layers", actual, expected, tolerance, lambda _: samples[0].path
        )
        if not stage.equal:
            detail = f"layer {layer}, {stage.detail}"
            return StageParity(**{**asdict(stage), "detail": detail})
    return None


def _batches(
    target: ParityTarget,
    pipeline: NetworkPipeline,
    samples: Sequence[ParitySample],
    tolerance: float,
) -> StageParity:
    """Compare batches of several sizes with single images."""
    resized = pipeline.resized(samples[:1])
    x = pipeline.normalized(resized)
    image = _input_of(target, samples[0], resized[0], x[0])
    rows = np.concatenate([image, image[:, :, ::-1].copy()])  # an image and its mirror
    single = [target.run(rows[i : i + 1]) for i in range(2)]
    for size in BATCH_SIZES:
        batch = np.concatenate([rows] * size)[:size]
        try:
            values = target.run(np.ascontiguousarray(batch))
        except Exception as error:  # a runtime's own errors have no common class
            text = str(error).strip().splitlines()
            detail = f"{count_text(size, 'image')}: {text[0] if text else error!r}"
            return _failed("batch", size, tolerance, detail)
        for key in ("logits", "probabilities"):
            if key not in values:
                continue
            expected = np.concatenate([single[i % 2][key] for i in range(size)])
            stage = compare_values(
                "batch", values[key], expected, tolerance, lambda i: f"image {i + 1}"
            )
            if not stage.equal:
                detail = f"batch of {size}, {stage.detail}"
                return StageParity(**{**asdict(stage), "detail": detail})
    return StageParity(
        stage="batch",
        images=max(BATCH_SIZES),
        differing=0,
        max_difference=0.0,
        tolerance=tolerance,
    )


def _same_class(
    values: Mapping[str, np.ndarray], logits: np.ndarray, tolerance: float
) -> tuple[int, int]:
    """Return the numbers of images with the same class, and of ties."""
    key = "logits" if "logits" in values else "probabilities"
    same = values[key].argmax(axis=1) == logits.argmax(axis=1)
    if logits.shape[1] < 2:
        return int(same.sum()), 0
    top = np.sort(logits, axis=1)
    ties = top[:, -1] - top[:, -2] <= 2 * tolerance
    return int((same | ties).sum()), int(ties.sum())
