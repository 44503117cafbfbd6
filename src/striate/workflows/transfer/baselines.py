"""Baselines of a transfer run (`--compare`), such as training from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from striate.core import device as devices
from striate.core.files import write_json
from striate.finetune.cut_points import find_cut_points
from striate.metrics.significance import mcnemar
from striate.run import layout as names
from striate.run.baselines_table import Baseline, baseline_dicts
from striate.run.pretrained import find_weights
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.run.run import Run
from striate.run.transfer_plan import LOGISTIC, TUNED, TransferPlan
from striate.workflows.train.train import train_recipe
from striate.workflows.transfer.features import probe_images
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.plan import options_from_trial
from striate.workflows.transfer.transfer import transfer_recipe

SCRATCH, HEAD_ONLY, FINE_TUNED = "from scratch", "head only", "fine-tuned"


def run_baselines(
    run: Run,  # the run from `transfer_recipe`, with the data in memory
    recipe: Recipe,
    options: TransferOptions,
    *,
    quiet: bool = True,
    # Called with a line of text when a baseline begins.
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Baseline, ...]:
    """Train two baselines for a transfer run; write a comparison to the run folder.

    The baselines use the same images, splits, image size and settings. No cached
    features are shared, so that times can be compared. The run is from
    `transfer_recipe`, with the data in memory. `tell` is called with a line of text
    when a baseline begins.
    """
    facts = run.manifest["transfer"]
    hidden = recipe.head_hidden > 0 and options.cut is None
    own = HEAD_ONLY if hidden or len(facts.get("stages", ())) < 2 else FINE_TUNED
    runs = {own: run}
    # Without cached features each takes its full time; the weights stay where they are.
    weights = find_weights(str(recipe.pretrained), recipe.cache).path
    uncached = replace(recipe, cache="off", head_hidden=0, pretrained=str(weights))
    tuned, folder = _fine_tune_options(run, options), run.path / names.BASELINES
    common = partial(transfer_recipe, uncached, data=run.data, quiet=quiet)
    if HEAD_ONLY not in runs:
        tell(f"baseline: {HEAD_ONLY}")
        logistic = TransferOptions(head=LOGISTIC)
        runs[HEAD_ONLY] = common(logistic, out=folder / "head_only")
    if FINE_TUNED not in runs and tuned is not None:
        tell(f"baseline: {FINE_TUNED} after {tuned.cut}")
        runs[FINE_TUNED] = common(tuned, out=folder / "fine_tuned")
    tell(f"baseline: {SCRATCH}")
    fresh = replace(recipe, pretrained=None, freeze=None)
    out = folder / "scratch"
    runs[SCRATCH] = train_recipe(fresh, data=run.data, out=out, quiet=quiet)
    order = [name for name in (SCRATCH, HEAD_ONLY, FINE_TUNED) if name in runs]
    baselines = tuple(_baseline(name, runs[name], runs[HEAD_ONLY]) for name in order)
    rows = baseline_dicts(baselines)
    write_json(run.path / names.BASELINES_FILE, {"baselines": rows})
    write_report(run)
    return baselines


def _fine_tune_options(run: Run, options: TransferOptions) -> TransferOptions | None:
    """Return the options of the fine-tuned baseline, from the plan if there is one."""
    path = run.path / names.PLAN
    if path.is_file():
        tuned = TransferPlan.read(path).tuned
        if tuned is not None:
            free = replace(options, cut=None, head=TUNED, views=0)
            return options_from_trial(tuned, free)
    model = run.model.to(devices.select_device(run.recipe.device))
    cuts = find_cut_points(model, probe_images(model, run.data)).cuts
    if len(cuts) == 1:
        return None
    return TransferOptions(cut=cuts[(len(cuts) - 1) // 2].name, head=TUNED)


def _baseline(name: str, run: Run, head_only: Run) -> Baseline:
    split = run.evaluated_split
    score, facts = run.scores[split], run.manifest.get("transfer", {})
    correct, other = (
        p.correct for p in (run.predictions(split), head_only.predictions(split))
    )
    p = mcnemar(int((correct & ~other).sum()), int((other & ~correct).sum()))
    return Baseline(
        name=name,
        path=str(run.path),
        cut=facts.get("cut", ""),
        split=split,
        accuracy=score["accuracy"],
        interval=tuple(score["interval"]),
        count=score["count"],
        seconds=run.manifest["seconds"],
        plan_seconds=facts.get("plan", {}).get("seconds", 0.0),
        cached=facts.get("plan", facts).get("cached", 0),
        p=None if name == HEAD_ONLY else p,
    )
