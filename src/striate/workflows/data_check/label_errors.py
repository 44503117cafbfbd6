"""Search for label errors by cross-validation and confident learning.

Each fold is predicted by a classifier fitted to the other folds, so that no label is
memorized. Duplicates and given groups are in one fold for the same reason. Photographs
are classified by features of a pretrained network, as in `striate train`; small images
by small networks that are trained from scratch.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import numpy as np

from striate.core.errors import WeightsError
from striate.core.format import count_text
from striate.core.preprocess_config import MAX_WHITE_LEVEL, Preprocess
from striate.data.check.check import DataCheckResult
from striate.data.check.label_errors import ConfidentLearning, LabelErrors
from striate.data.load import load_labeled
from striate.data.scan import Tick
from striate.data.sources.source import Source
from striate.data.split.exact_counts import stratify
from striate.models.adapt_first_conv import fitted
from striate.run.choose_recipe import BACKBONE, PHOTO_SIDE
from striate.run.prepare_run import auto_model
from striate.run.pretrained import WeightsFile, find_weights
from striate.run.recipe import Recipe
from striate.workflows.data_check.as_json import split_groups
from striate.workflows.data_check.cross_validation import CrossValidation
from striate.workflows.data_check.feature_validation import FeatureValidation

Validation = CrossValidation | FeatureValidation

# Measured on digits and Fashion-MNIST, training only (docs/notebook/data-check.md).
FOLDS = 5
STEPS = 400  # training steps of each network; the number of epochs is limited by EPOCHS
EPOCHS = (2, 20)
BATCH = 64
# Smallest side of the networks, and a side that is enough for classification.
SIDES = (8, 64)


def find_label_errors(
    result: DataCheckResult, *, offline: bool = False, tick: Tick | None = None
) -> DataCheckResult:
    """Search for label errors, and add them to the findings of a data check.

    Nothing is written, except downloaded weights in the cache; with `offline`, nothing
    is downloaded. Existing splits are ignored: labels of the test split are checked
    like all others.

    Raises:
        NonFiniteError: The loss of a network became NaN or infinite.

    Example:
        >>> from striate.data.check.check import check_dataset
        >>> from striate.data.sources.source import from_arrays
        >>> pixels = np.random.default_rng(0).integers(0, 90, (40, 8, 8), np.uint8)
        >>> pixels[20:] += 90
        >>> names = ["night"] * 20 + ["day"] * 20
        >>> names[3] = "day"
        >>> result = check_dataset(from_arrays("sky", pixels, names), near=False)
        >>> find_label_errors(result).findings[0].groups[0].members
        (3,)
    """
    start = time.perf_counter()
    fix = "leave out --labels; the report page of a run has the clearest errors"
    result.source.labels.require_one_label("--labels", fix)
    weights, reason = pretrained_weights(result, offline)
    recipe, labels = training_recipe(result), result.source.labels
    preprocess = choose_input(result, weights)
    class_ids = np.array([labels.index(i.record.label) for i in result.items], np.int64)
    probs = np.zeros((len(class_ids), len(labels)), np.float32)
    has_prediction = np.zeros(len(class_ids), bool)
    if len(set(class_ids.tolist())) > 1:
        subset, _ = load_labeled(usable_source(result), preprocess, labels, cache="off")
        number = {item.record.path: i for i, item in enumerate(result.items)}
        positions = np.array([number[path] for path in subset.paths])
        validation: Validation = CrossValidation(
            subset=subset, preprocess=preprocess, classes=len(labels), recipe=recipe
        )
        if weights is not None:
            validation = FeatureValidation(
                subset=subset,
                preprocess=preprocess,
                classes=len(labels),
                weights=weights,
                recipe=recipe,
            )
        folds = label_error_folds(result, recipe.seed)[positions]
        for prediction in validation.predictions(folds, tick or (lambda *_: None)):
            rows = positions[prediction.rows]
            probs[rows] = prediction.probs
            has_prediction[rows] = prediction.trained_classes[class_ids[rows]]
    analysis = ConfidentLearning(
        probs=probs, labels=class_ids, has_prediction=has_prediction
    )
    label_errors = LabelErrors(
        analysis=analysis,
        names=labels.names,
        model=BACKBONE if weights else auto_model(preprocess.channels),
        method=_method(weights, preprocess, recipe),
        reason=reason,
        folds=FOLDS,
        epochs=0 if weights else recipe.epochs,
        seconds=time.perf_counter() - start,
    )
    return result.with_label_errors(label_errors)


def pretrained_weights(
    result: DataCheckResult, offline: bool = False
) -> tuple[WeightsFile | None, str]:
    """Return the weights for photographs; or None, and why they are not used."""
    stats, arrays = [item.stats for item in result.items], result.source.arrays
    side = int(statistics.median(min(s.height, s.width) for s in stats)) if stats else 0
    if side < PHOTO_SIDE:
        return None, f"images of {side} pixels are too small for a pretrained network"
    if arrays is not None and arrays.shape[-1] not in (1, 3):
        return None, f"a pretrained network cannot use {arrays.shape[-1]} channels"
    try:
        return find_weights(BACKBONE, offline=offline), ""
    except WeightsError as error:
        return None, f"the pretrained weights are not available ({error.what})"


def _method(weights: WeightsFile | None, preprocess: Preprocess, recipe: Recipe) -> str:
    """Return a description of the classifiers of the cross-validation."""
    if weights is not None:
        return (
            f"logistic regression on the features of a frozen {BACKBONE}, pretrained "
            "on ImageNet"
        )
    epochs = count_text(recipe.epochs, "epoch")
    return f"the network {auto_model(preprocess.channels)}, {epochs} each"


def training_recipe(result: DataCheckResult) -> Recipe:
    """Return the training settings; large data sets have fewer epochs.

    Example:
        >>> from striate.data.check.check import check_dataset
        >>> training_recipe(check_dataset("digits", near=False)).epochs
        18
    """
    train_size = max(1, len(result.items) * (FOLDS - 1) // FOLDS)
    epochs = min(max(round(STEPS * BATCH / train_size), EPOCHS[0]), EPOCHS[1])
    return Recipe(data=result.source.name, epochs=epochs, batch_size=BATCH)


def choose_input(
    result: DataCheckResult, weights: WeightsFile | None = None
) -> Preprocess:
    """Return the preprocessing of the weights, else one with a side in `SIDES`."""
    stats = [item.stats for item in result.items]
    sizes = {(s.height, s.width) for s in stats}
    size = sizes.pop() if len(sizes) == 1 else (SIDES[1], SIDES[1])
    height, width = (min(max(side, SIDES[0]), SIDES[1]) for side in size)
    arrays = result.source.arrays
    channels = 3 if any(s.colored for s in stats) else 1
    if arrays is not None and arrays.shape[-1] not in (1, 3):
        channels = arrays.shape[-1]  # these cannot be converted
    if weights is not None and weights.preprocess is not None:
        mean, std = fitted(weights.preprocess, channels)
        return replace(weights.preprocess, channels=channels, mean=mean, std=std)
    return Preprocess(
        channels=channels,
        height=height,
        width=width,
        white_level=MAX_WHITE_LEVEL,
        jpeg="reduced",
    )


def usable_source(result: DataCheckResult) -> Source:
    """Return the data source without unusable images."""
    source = result.source
    used = {item.record.path for item in result.items}
    rows = [i for i, record in enumerate(source.records) if record.path in used]
    return replace(
        source,
        records=tuple(source.records[i] for i in rows),
        arrays=None if source.arrays is None else source.arrays[rows],
    )


def label_error_folds(result: DataCheckResult, seed: int) -> np.ndarray:
    """Return stratified fold indices, (N,); duplicates and groups stay in one fold."""
    groups = enumerate(split_groups(result))
    group_names = {i: f"group {k}" for k, members in groups for i in members}
    folds = stratify(
        [item.record.label for item in result.items],
        [item.stats.content for item in result.items],
        [group_names.get(i) for i in range(len(result.items))],
        {str(fold): 1 / FOLDS for fold in range(FOLDS)},
        seed,
    )
    return np.array(folds, np.int64)
