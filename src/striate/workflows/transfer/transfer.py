"""Transfer learning: compute features with a frozen backbone, then fit a head."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from striate.core.errors import SettingError
from striate.core.files import hash_file, read_json, write_csv
from striate.core.format import count_text
from striate.core.settings import AUTO, flag_name
from striate.core.torch_modes import own_torch_modes
from striate.data.config import AugmentConfig
from striate.data.image_data import ImageData
from striate.engine.config import TUNED_LR
from striate.engine.csv_logger import write_results
from striate.engine.weights_io import save_weights
from striate.finetune.cut_points import find_cut_points
from striate.finetune.freeze import check_frozen
from striate.finetune.split_model import BEFORE, CutPoint
from striate.metrics.temperature import LOGISTIC_PRIOR_SD, PRIOR_SD
from striate.models.pretrained_registry import PRETRAINED
from striate.models.timm import is_timm
from striate.run import layout as names
from striate.run.build_network import resolve_network, short_name
from striate.run.calibration import save_evaluation
from striate.run.choose_recipe import BACKBONE
from striate.run.manifest import now, record_stop, update_manifest
from striate.run.multi_label_predictions import predictions_of
from striate.run.parse_settings import AUTO_SETTINGS, make_recipe
from striate.run.prepare_run import (
    LOADED_DATA_SETTINGS,
    build_model,
    load_recipe,
    prepare_model,
    resolve_recipe,
    write_run_inputs,
)
from striate.run.pretrained import with_known_network
from striate.run.progress import TransferCallbacks, features_progress, line_printer
from striate.run.recipe import TRAINING_LOOP_SETTINGS, Recipe
from striate.run.recipe_types import TransferSettings
from striate.run.refuse_torchrun import check_single_process
from striate.run.report_page import write_report
from striate.run.run import Run
from striate.run.train_accuracy import measure_train_accuracy, outputs_accuracy
from striate.run.transfer_plan import LOGISTIC, TransferPlan
from striate.run.transfer_plan_findings import write_plan
from striate.workflows.transfer.features import (
    BackboneFeatures,
    compute_features,
    probe_images,
)
from striate.workflows.transfer.heads import HeadResult, HeadTrainer
from striate.workflows.transfer.options import (
    SplitModel,
    TransferOptions,
    split_model,
    with_hidden_head,
)
from striate.workflows.transfer.plan import options_from_plan, plan_transfer

PENALTY_COLUMNS = ("penalty", "loss", "accuracy")
PLANNING_NOTE = "cut point and head are chosen on the training split (--cut auto)"


@own_torch_modes()
def transfer(
    data: str | Path | ImageData,
    *,
    pretrained: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Unpack[TransferSettings],
) -> Run:
    """Transfer a pretrained network to new images, like the command `striate transfer`.

    Args:
        data: Images, as for `load_data`, or a loaded data set.
        pretrained: Weights: a run folder, a file, or a name of `striate models
            --weights` (default: `mobilenet_v2`).
        out: The run folder (default: `runs/transfer/<data>-<model>`).
        overwrite: Replace an existing run folder.
        quiet: Show no progress.
        settings: Fields of `TransferOptions` and `Recipe`, such as `cut="auto"`,
            `head="tuned"`, `epochs=10`.

    Raises:
        StriateError: The data, the weights or the settings are invalid, or a file
            could not be written.
    """
    names_of_options = {spec.name for spec in fields(TransferOptions)}
    given: dict[str, Any] = {**settings}
    if pretrained is not None:
        given["pretrained"] = str(pretrained)
    options = {key: given.pop(key) for key in names_of_options & given.keys()}
    loaded = data if isinstance(data, ImageData) else None
    if fixed := sorted(LOADED_DATA_SETTINGS & given.keys()) if loaded else []:
        what = f"{', '.join(fixed)} cannot be set after the images are loaded"
        raise SettingError(what, where="transfer", fix="pass the setting to load_data")
    source = str(data) if loaded is None else loaded.origin or loaded.name
    return transfer_recipe(
        make_recipe({**given, "data": source}),
        TransferOptions(**options),
        data=loaded,
        out=Path(out) if out is not None else None,
        overwrite=overwrite,
        quiet=quiet,
    )


@own_torch_modes()
def transfer_recipe(
    recipe: Recipe,
    options: TransferOptions | None = None,
    *,
    data: ImageData | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    callbacks: TransferCallbacks | None = None,
    verb: str = "transfer",
    quiet: bool = False,
) -> Run:
    """Transfer a pretrained model: compute backbone features, then train a head.

    Args:
        recipe: All settings; without `pretrained`, the weights of `mobilenet_v2`.
        options: Cut point, kind of head, and fine-tuning options.
        data: The images, if they are already loaded (`load_recipe`).
        out: The run folder (default: see `verb`).
        overwrite: Replace an existing run folder.
        callbacks: Functions that are called in the course of the run.
        verb: Name of the command: the run folder is `runs/<verb>/<data>-<model>`.
        quiet: Show no progress.

    Raises:
        StriateError: The data, the weights or the settings are invalid, or a file
            could not be written.
    """
    callbacks = callbacks or TransferCallbacks()
    recipe = resolve_network(with_known_network(_with_weights(recipe)))
    options = with_hidden_head(recipe, options or TransferOptions())
    _check(recipe)
    names.check_out(out, overwrite)
    if recipe.lr is None and options.may_tune:
        recipe = replace(recipe, lr=TUNED_LR[recipe.optimizer])
    if data is None:
        data = load_recipe(recipe, quiet=quiet)
    if options.is_planned:
        fix = "name the last frozen layer: --cut LAYER --head tuned"
        data.labels.require_one_label("--cut auto", fix)
    recipe = resolve_recipe(recipe, data)
    model = build_model(recipe, data)
    prepare_model(model, data, recipe)
    # A wrong --cut or --head fails before the run folder is made.
    split = None if options.is_planned else split_model(model, data, recipe, options)
    name = f"{data.name}-{short_name(recipe.model)}"
    new = names.new_folder(verb, name, out, overwrite)
    with new as folder, record_stop(folder):
        job = _TransferJob(folder, model, data, recipe, quiet)
        plan = None
        if split is None:
            job.write_inputs([PLANNING_NOTE])
            callbacks.on_begin(data, folder)
            plan = plan_transfer(model, data, recipe, options, line_printer(quiet))
            write_plan(folder, plan)
            callbacks.on_plan(plan)
            options = options_from_plan(plan, options)
            split = split_model(model, data, recipe, options)
        job = replace(job, recipe=replace(recipe, freeze=split.patterns or None))
        job.write_inputs(_notes(split.cut, recipe, options))
        if plan is None:
            callbacks.on_begin(data, folder)
        return job.run(split, options, plan)


def _with_weights(recipe: Recipe) -> Recipe:
    """Return the recipe with pretrained weights: those of its network by default."""
    if recipe.pretrained is not None:
        return recipe
    name = BACKBONE if recipe.model == AUTO else recipe.model
    if name not in PRETRAINED and not is_timm(name):
        name = short_name(name)
        what = f"there are no published pretrained weights of {name}"
        fix = "add --pretrained RUN or FILE, or choose a network that is listed by "
        fix += "`striate models --weights`"
        raise SettingError(what, where="--pretrained", fix=fix)
    return replace(recipe, pretrained=name)


def _check(recipe: Recipe) -> None:
    """Raise an error for settings that cannot be used in transfer learning."""
    check_single_process("striate transfer")
    for name in AUTO_SETTINGS:
        if getattr(recipe, name) == AUTO:
            what = f"{name} cannot be auto in transfer learning"
            raise SettingError(what, where=flag_name(name), fix="give a number")
    usual = Recipe(data=recipe.data)
    for name in TRAINING_LOOP_SETTINGS:
        if getattr(recipe, name) != getattr(usual, name):
            what = f"{name} has no effect on a head that is trained on features"
            raise SettingError(what, where=flag_name(name), fix="remove the setting")


def _notes(cut: CutPoint, config: AugmentConfig, options: TransferOptions) -> list[str]:
    """Return notes on frozen layers, and on settings that have no effect."""
    frozen = cut.name if cut.name.startswith(BEFORE) else f"up to {cut.name}"
    views = (
        f" and {count_text(options.views, 'augmented view')} of it"
        if options.views
        else ""
    )
    notes = [
        f"the layers {frozen} are frozen: they run once per image{views}; "
        "only the later layers are trained"
    ]
    if config.augmentation.is_active and not options.views:
        notes.append("augmentation has no effect without --views N")
    return notes


@dataclass(frozen=True)
class _TransferJob:
    """Training of a transfer run in its locked run folder."""

    folder: Path
    model: nn.Module = field(repr=False)
    data: ImageData
    recipe: Recipe
    quiet: bool

    def write_inputs(self, notes: list[str]) -> None:
        """Write the settings, the list of images and notes to the run folder."""
        write_run_inputs(self.folder, self.model, self.data, self.recipe, notes)
        update_manifest(self.folder, verb="transfer")

    def run(
        self,
        split: SplitModel,
        options: TransferOptions,
        plan: TransferPlan | None = None,
    ) -> Run:
        """Compute features, fit the head, evaluate and write the report."""
        start = time.perf_counter()
        folder, model, data = self.folder, self.model, self.data
        features = self._features(split, options, plan)
        features_end = time.perf_counter()
        trainer = HeadTrainer(
            head=split.cut.head,
            stages=split.stages,
            features=features,
            data=data,
            config=self.recipe,
        )
        result = trainer.fit(options.head_kind, self.quiet)
        end = time.perf_counter()
        check_frozen(model, split.frozen.sha256)
        save_weights(folder / names.BEST, model.state_dict())
        write_results(folder, result.history, data.labels.multi_label)
        if result.logistic:
            rows = [(r.penalty, r.loss, r.accuracy) for r in result.logistic.results]
            write_csv(folder / names.PENALTIES, PENALTY_COLUMNS, rows)
        run = Run(folder, model=model.eval(), data=data)
        _evaluate(run, trainer, options.head_kind)
        facts = _facts(options, split, features, result)
        facts["seconds"] = {"features": features.seconds, "head": end - features_end}
        seconds = end - start
        if plan:
            facts["plan"] = _plan_facts(plan, folder)
            seconds += plan.seconds
        update_manifest(
            folder,
            finished=now(),
            seconds=round(seconds, 3),
            epochs=len(result.history),
            images_per_second=round(features.count / seconds, 1),
            best_epoch=max(e.epoch for e in result.history if e.best),
            weights=hash_file(folder / names.BEST),
            train_accuracy=_train_accuracy(run, trainer),
            transfer=facts,
        )
        write_report(Run(folder, model=model, data=data))
        update_manifest(folder, status="done")
        return Run(folder, model=model, data=data)

    def _features(
        self, split: SplitModel, options: TransferOptions, plan: TransferPlan | None
    ) -> BackboneFeatures:
        """Compute the features of all images, or reuse the features of a plan."""
        model, data = self.model, self.data
        compute = partial(
            compute_features,
            model,
            frozen=split.backbone,
            data=data,
            recipe=self.recipe,
            tick=features_progress(self.quiet),
        )
        if plan and options.head_kind == LOGISTIC and not options.views:
            cuts = find_cut_points(model, probe_images(model, data))
            if cuts.last_is_vector:
                return compute(cuts).columns(cuts.columns(-1))
        return compute(split.cut, views=options.views)


def _facts(
    options: TransferOptions,
    split: SplitModel,
    features: BackboneFeatures,
    result: HeadResult,
) -> dict[str, object]:
    """Return the manifest values on cut point, head, features and training."""
    config = split.stages.config
    stages = {
        "stages": [stage.name for stage in split.stages.stages],
        "layer_decay": config.layer_decay,
        "unfreeze": config.unfreeze,
        "batch_norm": config.batch_norm,
    }
    return {
        "cut": split.cut.name,
        "head": options.head_kind,
        "views": options.views,
        "width": features.width,
        "computed": features.computed,
        "cached": features.cached,
        **({"penalty": result.logistic.penalty} if result.logistic else stages),
    }


def _plan_facts(plan: TransferPlan, folder: Path) -> dict[str, object]:
    """Return the manifest values of a plan, such as expected and measured accuracy."""
    return {
        "expected": plan.accuracy,
        "interval": [plan.low, plan.high],
        "accuracy": read_json(folder / names.SCORES)["val"]["accuracy"],
        "val_images": plan.val_images,
        "seconds": plan.seconds,
        "expected_seconds": plan.best.full_seconds,
        "cached": plan.cached,
    }


def _evaluate(run: Run, trainer: HeadTrainer, head_kind: str) -> None:
    """Evaluate a run on cached features, or on images for test-time augmentation."""
    unscaled = {}
    for split in run.splits_to_evaluate:
        subset = trainer.data.subset(split)
        if trainer.config.tta == "plain":
            outputs, labels = trainer.evaluate(split), trainer.data.labels
            unscaled[split] = predictions_of(subset.paths, outputs, labels)
        else:
            unscaled[split] = run.predict_subset(subset, scaled=False)
    prior_sd = LOGISTIC_PRIOR_SD if head_kind == LOGISTIC else PRIOR_SD
    save_evaluation(run.path, unscaled, prior_sd)


def _train_accuracy(run: Run, trainer: HeadTrainer) -> dict[str, Any]:
    """Return the training accuracy as JSON values; without TTA, use the features."""
    if trainer.config.tta != "plain":
        return measure_train_accuracy(run).as_record()
    outputs, labels = trainer.train_outputs(), trainer.data.labels
    return outputs_accuracy(outputs, labels, run.scaling).as_record()
