"""Class `Run`: settings, model, data and metrics of a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor, nn

from striate.core import device as devices
from striate.core.class_names import ClassNames
from striate.core.errors import RunError, SettingError
from striate.core.files import read_json
from striate.core.hooks import unwrap_compiled
from striate.core.notebook import NotebookResult
from striate.core.preprocess_config import Preprocess
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.data.load import load_data, load_labeled
from striate.data.load_options import LoadOptions
from striate.data.scan import CHANGED, MISSING, Tick
from striate.data.sources.source import UNUSED, Skipped
from striate.data.split.split_file import read_split_rows
from striate.data.subset import Subset
from striate.data.torch_dataset.source import TorchData
from striate.engine.csv_logger import read_results
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.evaluate import evaluate
from striate.engine.tta import TTA_MODES
from striate.engine.weights_io import load_weights
from striate.interpret.depth.snapshots import Snapshot
from striate.metrics.classification import ClassificationMetrics
from striate.metrics.multi_label import MultiLabelMetrics
from striate.run import layout as names
from striate.run.build_network import build_for_run
from striate.run.calibration import (
    Calibration,
    calibrated,
    label_calibration,
    read_predictions,
    read_scaling,
)
from striate.run.evaluation_batch_size import evaluation_batch_size
from striate.run.layer_norms import read_layer_norms
from striate.run.layout import find_run
from striate.run.lost_data import is_lost, lost_data_error
from striate.run.multi_label_calibration import LabelCalibration
from striate.run.multi_label_predictions import predictions_of
from striate.run.parse_settings import make_recipe
from striate.run.predict_images import ImagePredictor, PredictResult
from striate.run.predictions import Predictions
from striate.run.recipe import Recipe
from striate.run.review_rule import ReviewRule
from striate.run.stored_network import network_of_run
from striate.run.stored_operating_point import load_operating_point
from striate.run.yaml_io import read_settings


class Run(NotebookResult):
    """A run folder as an object; files are read on first use.

    Args:
        path: The folder, or its name below `runs/train` or `runs/transfer`.
        model: The network, if the run was trained with a Python object as model; or a
            name such as `net.py:Net`, which replaces the network of the run.
        data: The data set, if it is in memory (default: read again when needed).
        trust: Execute the network code of a run folder from another machine.

    Raises:
        RunError: The run folder does not exist.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        model: nn.Module | str | None = None,
        data: ImageData | None = None,
        trust: bool = False,
    ) -> None:
        self.path = find_run(path)
        if not isinstance(data, ImageData | None):
            what = f"data is a {type(data).__name__}, not loaded images"
            fix = "give data=striate.load_data(...), called as for the training"
            raise SettingError(what, where=self.path, fix=fix)
        self._network = model if isinstance(model, str) else ""
        self._model = unwrap_compiled(model) if isinstance(model, nn.Module) else None
        self._data = data
        self._trust = trust

    def __repr__(self) -> str:
        return f"Run('{self.path}')"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Return the content of `manifest.json`: versions, data set, status."""
        return dict(read_json(self.path / names.MANIFEST))

    @cached_property
    def recipe(self) -> Recipe:
        """Return the settings of the run."""
        return make_recipe(read_settings(self.path / names.ARGS))

    @cached_property
    def labels(self) -> ClassNames:
        """Return the class names in the order of the network outputs."""
        return names.read_class_names(self.path)

    @cached_property
    def preprocess(self) -> Preprocess:
        """Return the preprocessing of the images."""
        return Preprocess.from_dict(read_json(self.path / names.PREPROCESS))

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """Return one dict per epoch, as in `results.csv`; epochs count from 1."""
        return read_results(self.path)

    @property
    def layer_norms(self) -> list[Snapshot]:
        """Return the norms of each layer, recorded in training; empty if missing."""
        return read_layer_norms(self.path)

    @cached_property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of each evaluated split, as in `scores.json`."""
        return dict(read_json(self.path / names.SCORES))

    @cached_property
    def scaling(self) -> Calibration | None:
        """Return the calibration of `calibration.json`; None if missing."""
        return read_scaling(self.path)

    @property
    def label_calibration(self) -> LabelCalibration | None:
        """Return scaling and thresholds of several labels per image; else None."""
        return label_calibration(self.scaling, self.labels)

    @property
    def temperature(self) -> float:
        """Return the divisor of the logits in all reported probabilities.

        It is 1 if temperature scaling does not help, and for runs without
        `calibration.json`.
        """
        scaling = self.scaling
        return scaling.temperature if scaling and scaling.used else 1.0

    @cached_property
    def model(self) -> nn.Module:
        """Return the network with the best weights, in evaluation mode."""
        model = self.fresh_model() if self._model is None else self._model
        load_weights(model, self.path / names.BEST)
        return model.eval()

    def fresh_model(self) -> nn.Module:
        """Return the network of this run without its trained weights.

        Raises:
            RunError: The network was given as a Python object, so it has no name; or
                its code is in the run folder, and is not trusted.
        """
        classes = len(self.labels)
        return build_for_run(self.network, self.recipe, self.preprocess, classes)

    @cached_property
    def network(self) -> str:
        """Return the name of the network, or its file and class in the run folder.

        Raises:
            RunError: The network has no name, or its code is not trusted.
        """
        if self._network:
            return self._network
        record = self.manifest.get("network", {})
        return network_of_run(self.path, self.recipe.model, record, trust=self._trust)

    @property
    def origin(self) -> str:
        """Return the path or name of the data set; empty for arrays in memory."""
        return str(self.manifest["data"]["source"])

    @cached_property
    def data(self) -> ImageData:
        """Return the images of all splits; read the image files if necessary."""
        return self._data or self.read_again()

    def read_again(
        self, margin: float = 1.0, tick: Tick | None = None, origin: str = ""
    ) -> ImageData:
        """Read the image files, with the same splits and preprocessing as in training.

        Args:
            margin: As for `load_data`; above 1 for random crops.
            tick: Called with (done, total) while decoding.
            origin: New place of the data set, if it was moved.

        Raises:
            DataError: The images are no longer there.
            RunError: The run was trained on arrays in memory.
        """
        origin = origin or self.origin
        if not origin:
            fix = "give the data: striate.load_run(path, data=...) or resume(data=...)"
            what = "the run was trained on arrays in memory or on a torch Dataset, so "
            what += "its images cannot be read"
            raise RunError(what, where=self.path, fix=fix)
        rows = read_split_rows(self.path / names.SPLIT)
        used = [row for row in rows if row["split"] != UNUSED]
        options = LoadOptions(
            preprocess=self.preprocess,
            margin=margin,
            given_split={row["image_path"]: row["split"] for row in used},
            given_hashes={row["image_path"]: row.get("sha256", "") for row in rows},
            tick=tick,
        )
        # Shards are split again by content; equal settings give an equal split.
        config = replace(self.recipe, split=None, fraction=1.0)
        if is_lost(origin):
            raise lost_data_error(origin, self.path)
        return load_data(origin, config, options=options)

    def predictions(self, split: str) -> Predictions:
        """Return the saved predictions of a split.

        Raises:
            RunError: The run did not evaluate this split, or the file is empty.
        """
        path = self.path / names.predictions_file(split)
        if not path.is_file():
            files = sorted(p.stem for p in self.path.glob("predictions_*.csv"))
            existing = ", ".join(files) or "none"
            what = f"the {split} split was not evaluated (existing files: {existing})"
            fix = f"run: striate evaluate {quote(str(self.path))} --split {split}"
            raise RunError(what, where=path, fix=fix)
        predictions = read_predictions(path, self.labels, self.label_calibration)
        if not predictions.paths:
            what = f"{path.name} has no predictions"
            fix = "restore the file from a backup, or train again"
            raise RunError(what, where=path, fix=fix)
        return predictions

    @property
    def has_training_record(self) -> bool:
        """Return whether the run knows its training: settings, images, epochs."""
        return True

    @property
    def splits_to_evaluate(self) -> list[str]:
        """Return the names of the splits that are evaluated after training."""
        return [split for split in ("val", "test") if split in self.data.subsets]

    def predict_subset(
        self, subset: Subset, group: RankGroup = ONE_PROCESS, *, scaled: bool = True
    ) -> Predictions:
        """Predict all images of a subset with the best weights.

        Args:
            subset: The images.
            group: Processes that share the images; all of them get all predictions.
            scaled: Whether to apply the calibration of the run.
        """
        device, images = devices.select_device(self.recipe.device), self.preprocess
        batches = Batches(
            subset=subset,
            preprocess=images,
            batch_size=evaluation_batch_size(images.height, images.width),
            shuffle=False,
            device=device,
            rank=group.rank,
            world_size=group.world_size,
        )
        tta = TTA_MODES[self.recipe.tta]
        outputs = evaluate(self.model.to(device), batches(0), tta, group)
        predictions = predictions_of(subset.paths, outputs, self.labels)
        return calibrated(predictions, self.scaling) if scaled else predictions

    def predict(
        self,
        inputs: str | Path | Sequence[str | Path],
        *,
        threshold: float | None = None,
        operating_point: str | Path | None = None,
    ) -> PredictResult:
        """Predict the classes of images, given as files, folders or glob patterns.

        Args:
            inputs: Paths or glob patterns; in a folder, every file is tried. For a run
                on data in memory also paths of its images, as in `split.csv`.
            threshold: Mark predictions with a lower probability for a review.
            operating_point: A class whose operating point is stored in the run, or a
                file `operating_point.json`. It also decides for or against this class.

        Raises:
            DataError: An input matches no file, or no file is a usable image.
            SettingError: The threshold is not a probability.
            RunError: The operating point is missing, or belongs to other weights.
        """
        items = [inputs] if isinstance(inputs, str | Path) else [*inputs]
        if threshold is not None or operating_point is not None:
            fix = "leave them out: each class has its own threshold"
            self.labels.require_one_label("--threshold or --operating-point", fix)
        point = operating_point and load_operating_point(
            self.path, self.labels, self.temperature, operating_point
        )
        rule = ReviewRule(
            threshold=threshold,
            operating_point=point or None,
            classes=self.labels.names,
        )
        return self.image_predictor.predict(items, rule)

    @property
    def image_predictor(self) -> ImagePredictor:
        """Return the network with all that it needs to predict image files."""
        device = devices.select_device(self.recipe.device)
        return ImagePredictor(
            model=self.model.to(device),
            device=device,
            preprocess=self.preprocess,
            classes=self.labels.names,
            temperature=self.temperature,
            calibration=self.label_calibration,
            tta=TTA_MODES[self.recipe.tta],
            in_memory=self.image_in_memory,
        )

    def image_in_memory(self, path: str) -> Tensor | None:
        """Return the pixels of an image in memory by its path; None if not in memory.

        Shapes:
            (H, W, C) uint8, or float32 for float tensors of a torch `Dataset`
        """
        return None if self._data is None else self._data.image(path)

    def subset_for(
        self, data: str | TorchData | None = None, split: str | None = None
    ) -> tuple[Subset, str, tuple[Skipped, ...]]:
        """Return the images to evaluate, their split name, and the unused files.

        The default is the test split of the run, or val if there is no test split. For
        other `data`, the default is all images.
        """
        if data is not None:
            subset, skipped = load_labeled(data, self.preprocess, self.labels, split)
            name = data if isinstance(data, str) else type(data).__name__
            return subset, split or name, skipped
        name = split or ("test" if "test" in self.data.subsets else "val")
        return self.data.subset(name), name, self._changed_files()

    def _changed_files(self) -> tuple[Skipped, ...]:
        """Return the image files that are missing or have changed since training."""
        if self._data is not None:
            return ()
        return tuple(s for s in self.data.quarantined if s.reason in (CHANGED, MISSING))

    def evaluate(
        self, split: str | None = None, data: str | TorchData | None = None
    ) -> ClassificationMetrics | MultiLabelMetrics:
        """Evaluate a split of the run (default: test, else val) or images in `data`.

        `data` is a path or name, or a torch `Dataset` or `DataLoader`.
        """
        return self.predict_subset(self.subset_for(data, split)[0]).metrics()

    @property
    def evaluated_split(self) -> str:
        """Return the split in the report: `test` if it was evaluated, else `val`."""
        test = self.path / names.predictions_file("test")
        return "test" if test.is_file() else "val"

    def most_confused(self, count: int = 10) -> list[tuple[str, str, int]]:
        """Return the most frequent errors as (true class, predicted class, count)."""
        return self.predictions(self.evaluated_split).most_confused(count)

    def top_losses(self, count: int = 9) -> list[dict[str, Any]]:
        """Return the images with the highest loss as dicts, the highest loss first."""
        return self.predictions(self.evaluated_split).top_losses(count)


def load_run(
    path: str | Path,
    *,
    model: nn.Module | str | None = None,
    data: ImageData | None = None,
    trust: bool = False,
) -> Run:
    """Load a run from its folder.

    Args:
        path: The folder, or its name below `runs/train` or `runs/transfer`.
        model: The network, if the run was trained with a Python object as model; or a
            name such as `net.py:Net`, which replaces the network of the run.
        data: The data set, if it is in memory (default: read again when needed).
        trust: Execute the network code of a run folder from another machine.

    Raises:
        RunError: The run folder does not exist.
    """
    return Run(path, model=model, data=data, trust=trust)
