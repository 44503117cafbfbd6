"""`st.export`: write a run for other programs, after a comparison with the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from striate.core.errors import RunError, SettingError, StriateError, WeightsError
from striate.core.files import refuse_existing, write_bytes
from striate.core.format import count_text
from striate.core.notebook import NotebookResult
from striate.core.registry import unknown_name_error
from striate.data.decode.preprocess import check_takes_pixels
from striate.engine.tta import TTA_MODES
from striate.exporters.fold import fold_batch_norm
from striate.exporters.graph import NetworkGraph
from striate.exporters.onnx_file import OnnxOptions, write_onnx
from striate.exporters.onnx_target import OnnxTarget
from striate.exporters.parity import (
    LOGITS_TOLERANCE,
    NetworkPipeline,
    ParityReport,
    check_parity,
)
from striate.exporters.probabilities import ProbabilityMap
from striate.exporters.trace_graph import trace_graph
from striate.run.run import Run
from striate.workflows.export.samples import validation_samples

FORMATS = {".onnx": "onnx"}
VERIFIED_IMAGES = 100


class ExportRefusedError(StriateError):
    """Error of an export whose answers differ from those of the run."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class ExportResult(NotebookResult):
    """The written file, and its comparison with the run."""

    path: Path
    format: str
    size: int  # bytes
    report: ParityReport
    inputs: str
    outputs: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "file": str(self.path),
            "format": self.format,
            "bytes": self.size,
            "input": self.inputs,
            "outputs": list(self.outputs),
            "parity": self.report.as_dict(),
        }


def export(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    format: str | None = None,
    options: OnnxOptions | None = None,
    verify: int | None = VERIFIED_IMAGES,
    tolerance: float = LOGITS_TOLERANCE,
    threshold: float = 0.0,
    overwrite: bool = False,
) -> ExportResult:
    """Write a run to one file for other programs: images in, probabilities out.

    The file is compared with the run on images of the validation split, stage by stage.
    If a stage differs, nothing is written.

    Args:
        run: A finished run, or its folder.
        out: The file; its suffix decides the format. Default: `NAME.onnx` in the run's
            folder `export/`.
        format: `onnx`; default: by the suffix of `out`.
        options: Inputs and outputs of the file.
        verify: Number of validation images to compare; None for all.
        tolerance: Largest allowed difference of a logit.
        threshold: Probability below which the answer is `unknown`.
        overwrite: Replace an existing file.

    Raises:
        ExportRefusedError: The answers differ; the message names the first stage.
        UnsupportedOperationError: An operation of the network cannot be exported.
        RunError: The run is not finished, or the file exists.

    Example:
        >>> # st.export("runs/train/digits", "digits.onnx").report.passed
    """
    run = run if isinstance(run, Run) else Run(run)
    options = options or OnnxOptions()
    name, path = _format_and_path(run, out, format)
    refuse_existing(path, overwrite)
    pipeline = run_pipeline(run, threshold)
    graph = fold_batch_norm(trace_graph(pipeline.model, run.preprocess.spec.shape))
    samples = validation_samples(run, verify, "val")
    payload = write_onnx(
        graph,
        preprocess=pipeline.preprocess,
        probabilities=pipeline.probabilities,
        options=options,
        metadata=run_facts(run),
    )
    target = OnnxTarget(payload, graph, options.input)
    report = check_parity(target, pipeline, samples, tolerance=tolerance)
    refuse_difference(report, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, payload)
    return ExportResult(
        path=path,
        format=name,
        size=len(payload),
        report=report,
        inputs=options.input,
        outputs=options.outputs,
    )


def _format_and_path(
    run: Run, out: str | Path | None, format: str | None
) -> tuple[str, Path]:
    suffix = Path(out).suffix.lower() if out is not None else ""
    name = format or FORMATS.get(suffix, "" if suffix else "onnx")
    if name not in FORMATS.values():
        raise unknown_name_error("export format", name or suffix, FORMATS.values())
    if out is not None:
        return name, Path(out)
    return name, run.path / "export" / f"{run.path.name}.{name}"


class _AugmentedNetwork(nn.Module):
    """The network with the test-time augmentation of its run."""

    def __init__(self, model: nn.Module, tta: str) -> None:
        super().__init__()
        self.model = model
        self._tta = TTA_MODES[tta]

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logits of all views."""
        return self._tta(self.model, x)


def run_pipeline(run: Run, threshold: float = 0.0) -> NetworkPipeline:
    """Return the network, preprocessing and probabilities of a run.

    Raises:
        RunError: The run is not finished.
        WeightsError: A weight is not finite.
        DataError: The network was trained on float tensors.
    """
    if run.manifest.get("status") != "done":
        what = f"the run is not finished (status: {run.manifest.get('status')})"
        raise RunError(what, where=run.path, fix="finish it with: striate train --resume")
    if not 0 <= threshold <= 1:
        what = f"the threshold must be 0–1, got {threshold:g}"
        raise SettingError(what, where="--threshold")
    check_takes_pixels(run.preprocess)
    model = run.model.cpu()
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            what = f"weight {name} has values that are not finite"
            raise WeightsError(what, where=run.path, fix="train the network again")
    if run.recipe.tta != "plain":
        model = _AugmentedNetwork(model, run.recipe.tta).eval()
    return NetworkPipeline(
        model=model,
        preprocess=run.preprocess,
        probabilities=_probabilities(run, threshold),
    )


def _probabilities(run: Run, threshold: float) -> ProbabilityMap:
    labels = run.label_calibration
    if labels is None:
        return ProbabilityMap(
            classes=tuple(run.labels.names),
            temperature=run.temperature,
            threshold=threshold,
        )
    decisions = list(labels.classes.values())
    scaled = labels.used
    return ProbabilityMap(
        classes=tuple(run.labels.names),
        multi_label=True,
        slopes=tuple(d.slope for d in decisions) if scaled else (),
        intercepts=tuple(d.intercept for d in decisions) if scaled else (),
        thresholds=tuple(d.threshold for d in decisions),
    )


def run_facts(run: Run) -> dict[str, Any]:
    """Return what an exported file says of its run: name, metrics, versions."""
    facts = run.manifest
    scores = {split: _plain(values) for split, values in run.scores.items()}
    return {
        "run": run.path.name,
        "network": run.recipe.model,
        "versions": facts.get("versions", {}),
        "metrics": scores,
    }


def _plain(values: Any) -> Any:
    """Return the numbers and short lists of a split's metrics."""
    return {
        key: value
        for key, value in dict(values).items()
        if isinstance(value, int | float | str) or value is None
    }


def refuse_difference(report: ParityReport, path: Path) -> None:
    """Raise an error if the answers differ.

    Raises:
        ExportRefusedError: Names the first stage that differs, with its values.
    """
    stage = report.first_difference
    if stage is None:
        return
    images = f"{stage.differing:,} of {count_text(stage.images, 'image')}"
    if stage.stage == "classes":
        images = count_text(stage.differing, "class name")
    what = (
        f"not written: the exported network differs from the run at the stage "
        f"{stage.stage} ({images}; {stage.detail})"
    )
    fix = "this is a fault of the export or of the run; see docs/export.md"
    raise ExportRefusedError(what, where=path, fix=fix)
