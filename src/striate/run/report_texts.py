"""Sentences of the run report that depend on how the run was made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from striate.core.findings import Cell, Column, Table
from striate.core.format import count_text
from striate.run import layout as names
from striate.run.build_network import CUSTOM
from striate.run.recipe import Recipe
from striate.run.run import Run

CLASS_WEIGHTS_TEXTS = {
    "auto": "logit adjustment (class frequencies)",
    "loss": "class weights",
    "sampling": "class-balanced sampling",
}


def setting_text(name: str, value: object) -> str:
    """Format the value of a setting: None as empty text, an image size as `28×28`.

    Example:
        >>> setting_text("image_size", (64, 48)), setting_text("freeze", ["0", "1*"])
        ('64×48', '0, 1*')
        >>> setting_text("compile", True), setting_text("dropout", None)
        ('true', '')
    """
    if isinstance(value, list | tuple):
        return ("×" if name == "image_size" else ", ").join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def settings_tables(recipe: Recipe) -> list[Table]:
    """Return the tables of the settings; those that differ from the default first."""
    # The learning rate and the augmentation depend on these settings.
    given = {name: getattr(recipe, name) for name in ("data", "optimizer", "augment")}
    defaults = Recipe(**given).resolved().as_dict()
    defaults |= {k: v for k, v in Recipe(data="").as_dict().items() if k in given}
    changed: list[tuple[Cell, ...]] = []
    equal: list[tuple[Cell, ...]] = []
    for name, value in recipe.as_dict().items():
        text, default = setting_text(name, value), setting_text(name, defaults[name])
        if text == default:
            equal.append((name, text))
        else:
            changed.append((name, text, default))
    columns = (Column("setting", "code"), Column("value"))
    tables = [
        Table(
            title="Different from the default",
            columns=(*columns, Column("default")),
            rows=tuple(changed),
        ),
        Table(title="Default settings", columns=columns, rows=tuple(equal)),
    ]
    return [table for table in tables if table.rows]


def evaluation_text(run: Run) -> str:
    """Return how the evaluated weights were chosen, and on which split."""
    split = run.evaluated_split
    if (run.path / names.PENALTIES).is_file():
        text = (
            "The head is a logistic regression on features of a frozen network. The L2 "
            "penalty was chosen by cross-validation on the training split. The head "
            f"was evaluated on the {split} split"
        )
        return f"{text}." if split == "test" else f"{text}; there is no test split."
    manifest = run.manifest
    epoch = f"epoch {manifest['best_epoch']} of {manifest['epochs']}"
    weighted = run.recipe.class_weights != "none"
    metric = f"validation {'balanced ' if weighted else ''}accuracy"
    if run.labels.multi_label:
        metric = "validation mAP"
    if split != "test":
        return (
            "There is no test split. These validation results are optimistic, because "
            f"the weights with the best {metric} were used ({epoch})."
        )
    weights = f"using the weights with the best {metric} ({epoch})"
    resumed = manifest.get("resumed", ())
    earlier = sum(session.get("was_finished", False) for session in resumed)
    if not earlier:
        return f"Evaluated once on the test split, {weights}."
    times = count_text(earlier, "earlier evaluation")
    return (
        f"Evaluated on the test split, {weights}. The run was continued after {times} "
        "on this split, so the result may be slightly optimistic."
    )


def loss_note(recipe: Recipe) -> str:
    """Return how the training loss differs from the validation loss in a chart."""
    extra = list(_extra_loss(recipe))
    if not extra:
        return (
            "Training loss: mean over the steps of the epoch. Validation loss: after "
            "the epoch."
        )
    return (
        f"The training loss is computed with {' and '.join(extra)}; the validation "
        "loss is not."
    )


def _extra_loss(recipe: Recipe) -> Iterator[str]:
    if recipe.label_smoothing:
        yield "label smoothing"
    if recipe.class_weights in CLASS_WEIGHTS_TEXTS:
        yield CLASS_WEIGHTS_TEXTS[recipe.class_weights]
    if recipe.augmentation.is_active:
        yield "augmentation"


def no_images_text(run: Run) -> str:
    """Return why a report has no images, as a part of a sentence."""
    if not run.origin:
        return "the run was trained on images in memory; pass `data` to show them"
    return "the image files could not be read, or they have changed"


def first_filters_texts(
    run: Run, layer: str, *, unchanged: bool, computed: bool
) -> tuple[str, str]:
    """Return the lead of the section on the first filters, and the first caption.

    Args:
        run: A finished run.
        layer: Name of the first convolution.
        unchanged: Whether the filters are the same before and after training.
        computed: Whether the filters were computed from images (whitening).
    """
    pretrained = run.manifest.get("pretrained")
    if not unchanged:
        lead = "Filters of the first convolution, before and after training."
        if pretrained:
            return lead, f"before training: pretrained ({_source(pretrained)})"
        custom = run.recipe.model.startswith(CUSTOM)  # which may have been trained
        return lead, "before training" if custom else "before training: random"
    reason = "Training did not change them."
    if layer in run.manifest.get("frozen", {}).get("layers", ()):
        reason = "The layer is frozen, so training did not change them."
    elif computed:
        reason = "They were computed from training images, and are not trained."
    caption = f"pretrained ({_source(pretrained)})" if pretrained else "filters"
    return f"Filters of the first convolution. {reason}", caption


def _source(pretrained: dict[str, Any]) -> str:
    """Return where the weights come from, without the license in parentheses."""
    return re.sub(r" \(.*\)$", "", str(pretrained["origin"]))
