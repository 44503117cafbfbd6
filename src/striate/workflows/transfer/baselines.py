"""Was it worth it? From scratch, the head alone, fine-tuned, on equal images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from striate.core import device as devices
from striate.core.files import write_json
from striate.finetune.cut_points import ladder
from striate.finetune.split_model import probe
from striate.metrics.significance import mcnemar
from striate.run import layout as names
from striate.run.baselines_table import Baseline, summary
from striate.run.pretrained import find_weights
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.run.run import Run
from striate.run.transfer_plan import LOGISTIC, TUNED, TransferPlan
from striate.workflows.train.train import train_recipe
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.plan import way_of
from striate.workflows.transfer.transfer import transfer_recipe

SCRATCH, ALONE, FINE = "from scratch", "head alone", "fine-tuned"


def rivals(
    run: Run,
    recipe: Recipe,
    wanted: TransferOptions,
    *,
    quiet: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Baseline, ...]:
    """Do what the run did in the other two ways, and write the comparison down.

    They have the same images in the same parts, the same size and the same settings,
    compute their own features, and lie in the run's folder.

    Args:
        run: From `transfer_recipe`, with its data at hand.
        recipe: That it was given.
        wanted: Likewise.
        quiet: Show no progress.
        tell: Gets a line when one begins.

    Raises:
        StriateError: One of them does not go, or the disk refused.
    """
    facts = run.manifest["transfer"]
    small = recipe.head_hidden > 0 and wanted.cut is None
    runs = {ALONE if small or len(facts.get("stages", ())) < 2 else FINE: run}
    # Without kept features each takes its time; the weights lie where they lay.
    weights = find_weights(str(recipe.pretrained), recipe.cache).path
    alone = replace(recipe, cache="off", head_hidden=0, pretrained=str(weights))
    cut = _tuned_cut(run, wanted)
    if ALONE not in runs:
        tell(f"rival: {ALONE}")
        runs[ALONE] = _transferred(
            run, alone, TransferOptions(head=LOGISTIC), "alone", quiet
        )
    if FINE not in runs and cut is not None:
        tell(f"rival: {FINE} behind {cut.cut}")
        runs[FINE] = _transferred(run, alone, cut, "tuned", quiet)
    tell(f"rival: {SCRATCH}")
    fresh = replace(recipe, pretrained=None, freeze=None)
    out = run.path / names.RIVALS / "scratch"
    runs[SCRATCH] = train_recipe(fresh, data=run.data, out=out, quiet=quiet)
    known = [name for name in (SCRATCH, ALONE, FINE) if name in runs]
    found = tuple(_rival(name, runs[name], runs[ALONE]) for name in known)
    write_json(run.path / names.RIVALS_FILE, {"rivals": summary(found)})
    write_report(run)
    return found


def _transferred(
    run: Run, recipe: Recipe, wanted: TransferOptions, name: str, quiet: bool
) -> Run:
    out = run.path / names.RIVALS / name
    return transfer_recipe(recipe, wanted, data=run.data, out=out, quiet=quiet)


def _tuned_cut(run: Run, asked: TransferOptions) -> TransferOptions | None:
    """Return how to fine-tune: as a plan found best, else behind the middle layer."""
    path = run.path / names.PLAN
    if path.is_file():
        best = TransferPlan.read(path).tuned
        if best is not None:
            return way_of(best, replace(asked, cut=None, head=TUNED, views=0))
    size = run.data.in_chans, *run.data.image_size
    x = probe(size).to(devices.select_device(run.recipe.device))
    cuts = ladder(run.model.to(x.device), x).cuts
    if len(cuts) == 1:
        return None
    return TransferOptions(cut=cuts[(len(cuts) - 1) // 2].name, head=TUNED)


def _rival(name: str, run: Run, alone: Run) -> Baseline:
    split = run.evaluated_split
    score, facts = run.scores[split], run.manifest.get("transfer", {})
    mine, other = (
        p.predicted == p.truth
        for p in (run.predictions(split), alone.predictions(split))
    )
    chance = mcnemar(int((mine & ~other).sum()), int((other & ~mine).sum()))
    return Baseline(
        name=name,
        path=str(run.path),
        cut=facts.get("cut", ""),
        split=split,
        accuracy=score["accuracy"],
        interval=tuple(score["interval"]),
        count=score["count"],
        seconds=run.manifest["seconds"],
        planning=facts.get("plan", {}).get("seconds", 0.0),
        kept=facts.get("plan", facts).get("kept", 0),
        p=None if name == ALONE else chance,
    )
