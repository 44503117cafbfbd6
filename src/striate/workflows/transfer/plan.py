"""Transfer plan for `--cut auto`: choice of cut point, head and learning rates.

Only the training split is used. One pass gives the features at every cut point, and a
linear probe at each shows how well they classify already. It does not show how well
fine-tuning works. So a few candidates are trained on a part of the images.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from torch import nn

from striate.core.format import count_text
from striate.data.image_data import ImageData
from striate.finetune.cut_points import find_cut_points
from striate.finetune.freeze import freeze
from striate.finetune.linear_probe import LinearProbe, probe_learning_curve
from striate.metrics.intervals import Z95
from striate.report.format import percent
from striate.run.recipe import Recipe
from striate.run.transfer_plan import LOGISTIC, TUNED, TransferPlan, TransferTrial
from striate.workflows.transfer.features import compute_features, probe_images
from striate.workflows.transfer.heads import image_groups, logistic_loss
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.search import CandidateSearch, Tell
from striate.workflows.transfer.trials import (
    TrialRunner,
    limit_training_images,
    split_for_trials,
)


def options_from_trial(
    trial: TransferTrial, options: TransferOptions
) -> TransferOptions:
    """Return the transfer options of a trial, to train with all images."""
    return replace(
        options,
        cut=trial.cut,
        head=TUNED,
        layer_decay=trial.layer_decay,
        batch_norm=trial.batch_norm,
    )


def plan_transfer(
    model: nn.Module,  # the pretrained model on the training device; not modified
    data: ImageData,
    recipe: Recipe,  # settings of the heads
    # Options chosen by the user; the plan chooses the other options.
    options: TransferOptions,
    tell: Tell,  # called with a line of text for each result
) -> TransferPlan:
    """Compare cut points by linear probes and short trials, and propose the best.

    Validation and test images are not used. The model is not changed.
    """
    start = time.perf_counter()
    few = limit_training_images(data, recipe.seed)
    subset = few.subset("train")
    own = copy.deepcopy(model)
    cuts = find_cut_points(own, probe_images(own, data))
    backbone = freeze(own, (*cuts.backbone, *(recipe.freeze or ())))
    features = compute_features(own, cuts, backbone, few, recipe, splits=("train",))
    feature_seconds = time.perf_counter() - start
    tell(
        f"features of {count_text(len(subset), 'image')} computed, "
        f"{feature_seconds:.0f} s"
    )
    groups = image_groups(few, features)
    runner = TrialRunner(
        model=model,
        data=few,
        recipe=recipe,
        features=features,
        trial_split=split_for_trials(subset.labels, groups, recipe.seed),
        cut_points=cuts,
        total_images=sum(map(len, data.subsets.values())),
        train_images=len(data.subset("train")),
    )
    probes = _probe_cut_points(runner, groups, tell)
    search = CandidateSearch(runner=runner, options=options, tell=tell)
    search.run(probes)
    trials, best = search.trials, search.best_index()
    val_images = len(data.subset("val"))
    accuracy, half = expected_accuracy(probes[-1], trials[0], trials[best], val_images)
    return TransferPlan(
        probes=probes,
        trials=tuple(trials),
        best_index=best,
        accuracy=accuracy,
        low=max(0.0, accuracy - half),
        high=min(1.0, accuracy + half),
        val_images=val_images,
        images=len(subset),
        feature_seconds=feature_seconds,
        seconds=time.perf_counter() - start,
        cached=features.cached,
        skipped=tuple(search.skipped),
    )


def _probe_cut_points(
    runner: TrialRunner, groups: Sequence[str], tell: Tell
) -> tuple[LinearProbe, ...]:
    """Fit a linear probe to the features at every cut point."""
    data, seed, cut_points = runner.data, runner.recipe.seed, runner.cut_points
    x, y = runner.features.rows["train"].load(), data.subset("train").labels
    loss = logistic_loss(data, runner.recipe)
    probes = []
    for index, cut in enumerate(cut_points.cuts):
        columns = x[:, cut_points.columns(index)]
        points = probe_learning_curve(columns, y, data.num_classes, groups, loss, seed)
        width = columns.shape[1]
        probe = LinearProbe(cut=cut.name, width=width, count=len(x), points=points)
        probes.append(probe)
        tell(f"linear probe after {cut.name}: accuracy {percent(probe.accuracy)}")
    return tuple(probes)


def expected_accuracy(
    last: LinearProbe, head_only: TransferTrial, trial: TransferTrial, val_images: int
) -> tuple[float, float]:
    """Return the expected accuracy of a candidate, and half the 95 % interval width.

    The accuracy of the head alone is measured on all folds. The gain of a candidate is
    measured on the images that both trials were evaluated on. The interval covers the
    sampling error of the folds, of that gain, and of the validation split.
    """
    pairs = list(zip(trial.correct, head_only.correct, strict=True))
    gain = sum(int(new) - int(old) for new, old in pairs) / len(pairs)
    differing = sum(new != old for new, old in pairs) / len(pairs) ** 2
    accuracy = min(1.0, max(0.0, last.accuracy + gain))
    share = (accuracy * last.count + 2) / (last.count + 4)
    variance = share * (1 - share) * (1 / last.count + 1 / max(val_images, 1))
    return accuracy, Z95 * sqrt(variance + differing)


def options_from_plan(plan: TransferPlan, options: TransferOptions) -> TransferOptions:
    """Return the options of the user, completed by the options of the plan."""
    if plan.best.head == LOGISTIC:
        return TransferOptions(head=LOGISTIC, views=options.views)
    return options_from_trial(plan.best, options)
