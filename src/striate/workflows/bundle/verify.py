"""`striate bundle verify`: replay the golden images of a bundle on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.core.findings import Column, Prose, Table
from striate.core.format import count_text
from striate.core.notebook import NotebookResult
from striate.data.decode.preprocess import file_to_input
from striate.exporters.bundle.contents import INPUTS, LOGITS, PROBABILITIES
from striate.exporters.bundle.minisign import signature_path, verify_signature
from striate.exporters.onnx_target import OnnxTarget
from striate.exporters.parity import (
    LOGITS_TOLERANCE,
    NetworkPipeline,
    StageParity,
    compare_values,
)
from striate.run.bundle_run import BundleRun

ONNX = "model.onnx"


@dataclass(frozen=True, kw_only=True)
class BundleCheck(NotebookResult):
    """Comparison of this machine's answers with those in a bundle."""

    path: Path
    stages: tuple[StageParity, ...]
    signed_by: str = ""  # trusted comment of a verified signature
    unchecked: tuple[str, ...] = ()  # what was not checked, and why

    @property
    def passed(self) -> bool:
        """Return whether all stages are equal."""
        return all(stage.equal for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return {
            "bundle": str(self.path),
            "passed": self.passed,
            "stages": [{**vars(stage), "equal": stage.equal} for stage in self.stages],
            "signed_by": self.signed_by or None,
            "unchecked": list(self.unchecked),
        }

    @property
    def blocks(self) -> list[Prose | Table]:
        """Return the comparison as a table, and the conclusion."""
        columns = (
            Column("stage"),
            Column("images", "integer"),
            Column("differing", "integer"),
            Column("largest difference"),
        )
        rows = tuple(
            (stage.stage, stage.images, stage.differing, f"{stage.max_difference:.1e}")
            for stage in self.stages
        )
        images = count_text(self.stages[0].images, "golden image")
        first = next((stage for stage in self.stages if not stage.equal), None)
        if first is None:
            end = Prose(
                f"This machine gives the answers of the bundle: {images}.", "good"
            )
        else:
            text = f"The stage '{first.stage}' differs on this machine: {first.detail}."
            end = Prose(text, "bad")
        notes = [Prose(f"Not checked: {text}", "plain") for text in self.unchecked]
        signed = [Prose(f"Signature verified: {self.signed_by}", "good")]
        return [
            Table(columns=columns, rows=rows, title="Comparison with the bundle"),
            end,
            *(signed if self.signed_by else []),
            *notes,
        ]

    def __str__(self) -> str:
        state = "passed" if self.passed else "failed"
        return f"{self.path}: {state}"


def verify_bundle(path: str | Path, *, key: str | Path | None = None) -> BundleCheck:
    """Check every byte of a bundle, and replay its golden images on this machine.

    The images are decoded, resized and classified; the stages are compared with the
    values in the bundle: decode and resize (bit-equal), logits and probabilities of the
    network in PyTorch, and of the ONNX file if onnxruntime is installed.

    Args:
        path: The bundle.
        key: Public key (minisign) or its file; the signature is then checked too.

    Raises:
        BundleError: The bundle is damaged, or its signature is wrong or missing.
    """
    run = BundleRun(path)
    signed_by = verify_signature(path, key) if key is not None else ""
    unchecked = []
    if key is None and signature_path(Path(path)).exists():
        unchecked.append("the signature, because no --key was given")
    names, expected = run.bundle.golden_names, run.bundle.golden_arrays
    inputs = _inputs(run, names)
    pipeline = NetworkPipeline(
        model=run.model, preprocess=run.preprocess, probabilities=run.probabilities
    )
    resized = expected[INPUTS]
    logits = pipeline.logits(pipeline.normalized(resized))
    probs = pipeline.probabilities(logits)
    limit = LOGITS_TOLERANCE * max(1.0, float(np.abs(expected[LOGITS]).max()))
    stages = [
        compare_values("decode and resize", inputs, resized, 0.0, names.__getitem__),
        compare_values("logits", logits, expected[LOGITS], limit, names.__getitem__),
        compare_values(
            "probabilities",
            probs,
            expected[PROBABILITIES],
            LOGITS_TOLERANCE,
            names.__getitem__,
        ),
    ]
    if ONNX in run.bundle.target_names:
        stages += _onnx_stages(run, resized, expected[PROBABILITIES], names)
    return BundleCheck(
        path=Path(path),
        stages=tuple(stages),
        signed_by=signed_by,
        unchecked=tuple(unchecked),
    )


def _inputs(run: BundleRun, names: Sequence[str]) -> np.ndarray:
    """Return the golden images as this machine decodes and resizes them."""
    images = (run.bundle.golden_image(name) for name in names)
    return np.stack([file_to_input(image, run.preprocess).numpy() for image in images])


def _onnx_stages(
    run: BundleRun, resized: np.ndarray, expected: np.ndarray, names: Sequence[str]
) -> list[StageParity]:
    payload = run.bundle.target(ONNX)
    target = OnnxTarget(payload, run.bundle.graph, "image")
    probs = np.concatenate(
        [target.run(image[None])[PROBABILITIES] for image in resized]
    )
    return [
        compare_values(
            f"targets/{ONNX}", probs, expected, LOGITS_TOLERANCE, names.__getitem__
        )
    ]
