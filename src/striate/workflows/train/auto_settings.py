"""Settings that are found out when a run begins: `--batch-size auto`, `--lr auto`."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from striate.audit.network import ForwardError, audit
from striate.core import device as devices
from striate.core.errors import NonFiniteError, SettingError
from striate.core.files import write_csv
from striate.data.cache.free_memory import available_bytes
from striate.data.image_data import ImageData
from striate.engine.distributed.group import RankGroup
from striate.engine.gradient_accumulation import possible_micro_batches
from striate.engine.loss import cross_entropy_loss
from striate.engine.lr_finder import LRPoint, lr_range_test, suggest_lr
from striate.engine.rng import preserve_rng_state
from striate.engine.stepper import Stepper
from striate.report.png import save_curve
from striate.run import layout as names
from striate.run.builders import batches_of, cost_of_classes, optimizer_of
from striate.run.charts import range_curve
from striate.run.recipe import AUTO, DEFAULT_LR, Recipe
from striate.workflows.train.ranks import follows

MEMORY_SHARE = 0.5  # of what is free; images and the system want the rest
STEPS_AN_EPOCH = 32  # are left at least: fewer updates learn less, however fast
SMALLEST = 2


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What was found out.

    Args:
        recipe: With numbers in place of `auto`.
        notes: How they came about.
        tried: The range test, where there was one.
    """

    recipe: Recipe
    notes: tuple[str, ...] = ()
    tried: tuple[LRPoint, ...] = field(default=(), repr=False)

    def save(self, folder: Path) -> None:
        """Write the range test into a run folder, as numbers and as a chart."""
        if self.tried:
            rows = [(one.lr, one.loss) for one in self.tried]
            write_csv(folder / names.LR_RANGE, ("lr", "cost"), rows)
            chart = range_curve(rows, self.recipe.rate)
            save_curve(chart, folder / names.PLOTS / "lr_range.png")


def decide(
    recipe: Recipe, model: nn.Module, data: ImageData, ranks: RankGroup | None = None
) -> Decided:
    """Find out what a recipe left automatic; model and random state are untouched.

    The batch size comes first, since the rate depends on it.

    Args:
        recipe: All settings.
        model: Where it learns, before it has.
        data: The images.
        ranks: The processes that learn together; rank 0 finds out for all.

    Raises:
        SettingError: Not even two images a step fit.
    """
    found = Decided(recipe=recipe)
    if AUTO not in (recipe.batch_size, recipe.lr):
        return found
    if not follows(ranks):
        found = _found(found, model, data)
    if ranks is None:
        return found
    mine = {"batch_size": found.recipe.batch_size, "lr": found.recipe.lr}
    said = ranks.all_gather_object(mine, "what rank 0 found out")[0]
    return replace(found, recipe=replace(recipe, **said))


def _found(found: Decided, model: nn.Module, data: ImageData) -> Decided:
    recipe = found.recipe
    if recipe.batch_size == AUTO:
        size, why = _batch_size(recipe, model, data)
        found = Decided(recipe=replace(recipe, batch_size=size), notes=(why,))
    if recipe.lr == AUTO:
        found = _with_rate(found, model, data)
    return found


def _with_rate(found: Decided, model: nn.Module, data: ImageData) -> Decided:
    recipe = replace(found.recipe, lr=DEFAULT_LR[found.recipe.optimizer])
    device = devices.select_device(recipe.device)
    tried = lr_range_test(
        model,
        lambda copied: optimizer_of(copied, recipe),
        batches_of("train", data, recipe, device),
        cross_entropy_loss(
            recipe.label_smoothing, cost_of_classes(data, recipe, device)
        ),
        seed=recipe.seed,
        micro_batches=recipe.accumulate,
    )
    lr = suggest_lr(tried)
    note = f"learning rate by range test: {lr:g} (plots/lr_range.png)" if lr else ""
    lost = "the range test saw no cost fall; the learning rate is the default, "
    return Decided(
        recipe=replace(recipe, lr=lr or recipe.lr),
        notes=(*found.notes, note or f"{lost}{recipe.rate:g}"),
        tried=tuple(tried),
    )


def _batch_size(recipe: Recipe, model: nn.Module, data: ImageData) -> tuple[int, str]:
    """Return the batch size and why: predicted from shapes, then tried for real."""
    device = devices.select_device(recipe.device)
    most = max(len(data.subset("train")) // STEPS_AN_EPOCH, SMALLEST)
    size = 1 << (most.bit_length() - 1)
    free = _free_bytes(device)
    while True:
        # Pieces run one after the other: the largest decides.
        pieces = possible_micro_batches(size, recipe.accumulate)
        need = _predicted(model, data, -(-size // pieces))
        small = free is None or need is None or need <= MEMORY_SHARE * free
        if small and _goes(replace(recipe, batch_size=size), model, data, device):
            break
        if size <= SMALLEST:
            what = f"not even a step of {size} images fits into memory"
            fix = "use a smaller --image-size or network"
            raise SettingError(what, where="--batch-size auto", fix=fix)
        size //= 2
    reason = "more would leave fewer than 32 steps an epoch"
    if 2 * size <= most:
        reason = "more would not fit into memory"
    took = "a step was tried" if need is None else f"a step takes {need / 1e6:,.0f} MB"
    return size, f"batch size {size}: {took}; {reason}"


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()


def _predicted(model: nn.Module, data: ImageData, size: int) -> int | None:
    """Return the bytes of a step, or None where it does not run on shapes alone."""
    shape = (data.in_chans, *data.image_size)
    try:
        memory = audit(model, shape, batch_size=size).memory
    except ForwardError:
        return None
    return None if memory is None else memory.peak


def _goes(
    recipe: Recipe, model: nn.Module, data: ImageData, device: torch.device
) -> bool:
    """Try a step on a copy; out of memory is an answer, and no error."""
    copied = copy.deepcopy(model).train()
    recipe = replace(recipe, lr=DEFAULT_LR[recipe.optimizer])
    cost = cross_entropy_loss(
        recipe.label_smoothing, cost_of_classes(data, recipe, device)
    )
    optimizer, pieces = optimizer_of(copied, recipe), recipe.accumulate
    learn = Stepper(copied, optimizer, cost, recipe.seed, micro_batches=pieces)
    batches = batches_of("train", data, recipe, device)
    try:
        # Numbers that are none are the run's to tell, with all that it can say.
        with preserve_rng_state(), suppress(NonFiniteError):
            x, y = next(iter(batches(0)))
            learn(x, y, 0)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            return False
        raise
    return True
