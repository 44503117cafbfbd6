"""A bundle (`NAME.striate`) as a run: predict, evaluate and explain with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from striate.core.class_names import ClassNames
from striate.core.errors import RunError
from striate.core.preprocess_config import Preprocess
from striate.data.image_data import ImageData
from striate.data.scan import Tick
from striate.exporters.bundle.read import Bundle, open_bundle
from striate.exporters.graph_network import GraphNetwork
from striate.exporters.probabilities import ProbabilityMap
from striate.run.calibration import Calibration, TemperatureScaling
from striate.run.multi_label_calibration import ClassDecision, LabelCalibration
from striate.run.recipe import Recipe
from striate.run.run import Run

BUNDLE_SUFFIX = ".striate"


class BundleRun(Run):
    """A bundle with the interface of a run; it has no training images.

    The network is rebuilt from the list of operations in the bundle; no code of the
    bundle is executed.

    Args:
        path: The bundle.

    Raises:
        BundleError: The bundle is damaged, forged, or made by a newer striate.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.bundle: Bundle = open_bundle(path)
        self._network = ""
        self._model = None
        self._data = None
        self._trust = False

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Return the facts of the bundle in the form of a run's `manifest.json`."""
        data = {
            "name": self.path.stem,
            "source": "",
            "multi_label": self._is_multi_label,
        }
        return {**self.bundle.manifest, "status": "done", "data": data}

    @cached_property
    def recipe(self) -> Recipe:
        """Return default settings; those of the training are in the provenance."""
        return Recipe(data=self.path.stem)

    @property
    def has_training_record(self) -> bool:
        """Return False: a bundle does not know the training of its network."""
        return False

    @property
    def probabilities(self) -> ProbabilityMap:
        """Return classes, temperature and thresholds."""
        classes = {"classes": list(self.bundle.classes)}
        return ProbabilityMap.from_dict({**self.bundle.calibration, **classes})

    @property
    def _is_multi_label(self) -> bool:
        return bool(self.bundle.calibration.get("multi_label", False))

    @cached_property
    def labels(self) -> ClassNames:
        """Return the class names in the order of the network outputs."""
        return ClassNames(tuple(self.bundle.classes), self._is_multi_label)

    @cached_property
    def preprocess(self) -> Preprocess:
        """Return the preprocessing of the images."""
        return self.bundle.preprocess

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """Return no epochs: a bundle has no training history."""
        return []

    @cached_property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of the run, as in its `scores.json`."""
        metrics: Mapping[str, Any] = self.bundle.provenance.get("metrics", {})
        return dict(metrics)

    @cached_property
    def scaling(self) -> Calibration | None:
        """Return the calibration of the bundle."""
        values = self.probabilities
        if not values.multi_label:
            return TemperatureScaling(
                temperature=values.temperature,
                used=values.temperature != 1,
                reason="the run did not scale them",
                images=int(self.bundle.provenance.get("calibration_images", 0)),
            )
        count = len(values.classes)
        rows = zip(
            values.classes,
            values.slopes or [1.0] * count,
            values.intercepts or [0.0] * count,
            values.thresholds,
            strict=True,
        )
        decisions = {
            name: ClassDecision(slope=slope, intercept=intercept, threshold=threshold)
            for name, slope, intercept, threshold in rows
        }
        return LabelCalibration(classes=decisions, used=bool(values.slopes))

    @cached_property
    def model(self) -> nn.Module:
        """Return the network, in evaluation mode."""
        return self.fresh_model()

    def fresh_model(self) -> nn.Module:
        """Return the network with its weights, in evaluation mode."""
        return GraphNetwork(self.bundle.graph).eval()

    def read_again(
        self, margin: float = 1.0, tick: Tick | None = None, origin: str = ""
    ) -> ImageData:
        """Raise an error: a bundle has no images but its golden ones.

        Raises:
            RunError: Always.
        """
        what = "a bundle has no training, validation or test images"
        fix = "name the images: --data FOLDER, or image files"
        raise RunError(what, where=self.path, fix=fix)


def is_bundle(path: str | Path) -> bool:
    """Return whether a path is that of a bundle, by its suffix."""
    return Path(path).suffix.lower() == BUNDLE_SUFFIX and not Path(path).is_dir()


def open_run_or_bundle(
    path: str | Path, *, model: nn.Module | str | None = None, trust: bool = False
) -> Run:
    """Return a run by its folder or name, or a bundle by its file.

    Raises:
        RunError: There is no such run.
        BundleError: The bundle is damaged, forged, or made by a newer striate.
    """
    if not is_bundle(path):
        return Run(path, model=model, trust=trust)
    if model is not None:
        what = "a bundle has its own network"
        raise RunError(what, where=path, fix="leave out --model")
    return BundleRun(path)


def load_bundle(path: str | Path) -> BundleRun:
    """Load a bundle as a run: `predict`, `evaluate(data=...)`, `st.explain`.

    Raises:
        BundleError: The bundle is damaged, forged, or made by a newer striate.

    Example:
        >>> import striate as st  # doctest: +SKIP
        >>> st.load_bundle("cats.striate").predict("photos/")  # doctest: +SKIP
    """
    return BundleRun(path)
