"""The network of a run with preprocessing and probabilities, ready for an export."""

from __future__ import annotations

from shlex import quote
from typing import Any

import torch
from torch import Tensor, nn

from striate.core.errors import RunError, SettingError, WeightsError
from striate.data.decode.preprocess import check_takes_pixels
from striate.engine.tta import TTA_MODES
from striate.exporters.parity import NetworkPipeline
from striate.exporters.probabilities import ProbabilityMap
from striate.run.run import Run


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
        fix = f"finish it with: striate train --resume {quote(str(run.path))}"
        raise RunError(what, where=run.path, fix=fix)
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


def export_metadata(run: Run) -> dict[str, Any]:
    """Return what an exported file says of its run: name, metrics, versions."""
    facts = run.manifest
    scores = {split: _plain(values) for split, values in run.scores.items()}
    return {
        "run": run.path.name,
        "network": run.recipe.model,
        "versions": facts.get("versions", {}),
        "metrics": scores,
        "calibration_images": run.scaling.images if run.scaling else 0,
    }


def _plain(values: Any) -> Any:
    """Return the numbers and short lists of a split's metrics."""
    return {
        key: value
        for key, value in dict(values).items()
        if isinstance(value, int | float | str) or key == "interval"
    }
