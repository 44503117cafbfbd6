"""Report section of one image: predictions, heatmaps, and sanity checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.core import findings as f
from striate.core.errors import GeometryError
from striate.core.hooks import evaluation_mode
from striate.core.logits import logits_of
from striate.core.notebook import notebook_html
from striate.interpret.activations_at import forward
from striate.interpret.attribution.attribute import Attribution, attribute
from striate.interpret.attribution.sanity_checks import RandomScores
from striate.interpret.attribution.target import ClassRef
from striate.interpret.layer_choice import AUTO
from striate.interpret.render import enlarge, overlay_heatmap, to_image
from striate.report.format import probability_text
from striate.report.html_card import render_card
from striate.report.table_records import records
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import ExplainOptions

SIDE = 196  # minimum height of a drawn image, in pixels
COLOR_NOTE = (
    "Orange: importance. Red: supports the class. Blue: speaks against the class."
)
TOP = 3  # predicted classes shown

METHOD_NAMES = {
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "layercam": "LayerCAM",
    "scorecam": "Score-CAM",
    "occlusion": "Occlusion",
    "integrated_gradients": "Integrated gradients",
}


CHECK_COLUMNS = (
    f.Column("Method"),
    f.Column("Target", rank=1),
    f.Column("Layer", "code", rank=2),
    f.Column(
        "Deletion",
        "percent",
        hint="mean probability as the most important pixels are removed; lower is "
        "better",
    ),
    f.Column(
        "Deletion, random",
        "percent",
        key="random_deletion",
        hint="deletion in random pixel order",
        rank=3,
    ),
    f.Column(
        "Insertion",
        "percent",
        hint="mean probability as the most important pixels are added; higher is "
        "better",
    ),
    f.Column(
        "Insertion, random",
        "percent",
        key="random_insertion",
        hint="insertion in random pixel order",
        rank=3,
    ),
    f.Column(
        "Shuffled Weights",
        "number",
        key="shuffled_correlation",
        hint="rank correlation with the heatmap of a network with shuffled weights; "
        "near 0 is good; above 0.5: do not trust this heatmap",
    ),
)


@dataclass(frozen=True, kw_only=True)
class ImageExplanation:
    """Explanation of one image, as report section and data."""

    section: f.Section
    facts: dict[str, Any]
    maps: dict[str, Tensor]


def explain_image(
    loaded: LoadedModel, image: ExplainedImage, options: ExplainOptions
) -> ImageExplanation:
    """Predict the class of one image, and compute a heatmap with each method."""
    labels = loaded.labels.names if loaded.labels else None
    with evaluation_mode(loaded.model), torch.no_grad():
        logits = logits_of(forward(loaded.model, image.x))
    probs = loaded.probabilities(logits)[0]
    ranked = probs.argsort(descending=True)[: TOP + 1].tolist()
    names = {i: labels[i] if labels else f"class {i}" for i in ranked}
    random_scores: RandomScores = {}
    compute = partial(_attribute, loaded, image, options, random_scores)
    attributions, failed = _attributions(options, compute)
    shown = [*attributions]
    against = options.against
    several = loaded.labels is not None and loaded.labels.multi_label
    if against is None and not several:
        against = _other_class(loaded, image, options, ranked)
    if against is not None:
        method = attributions[0].method
        shown.append(compute(method, against))
    figures = tuple(
        f.Figure(names[i], probability_text(float(probs[i]))) for i in ranked[:TOP]
    )
    table = _sanity_table(shown)
    predicted = _predicted(loaded, probs, names[ranked[0]])
    truth = "" if image.truth is None else f" True class: {image.truth or 'none'}."
    target = attributions[0].target
    lead = f"{image.name}.{truth} Explained class: {target.text}."
    facts = {
        "image_path": image.name,
        "true": image.truth,
        "pred": predicted if labels else ranked[0],
        "predictions": [
            {"class": labels[i] if labels else i, "probability": float(probs[i])}
            for i in ranked
        ],
        "target": target.class_index,
        "target_text": target.text,
        "layer": next((e.layer.call for e in attributions if e.layer), None),
        "attributions": records(table),
    }
    warnings = [warning for each in shown for warning in _warnings(each)]
    blocks: list[f.Block] = [
        f.Figures(figures),
        _heatmaps(image, shown),
        table,
        *warnings,
        *failed,
    ]
    maps = {}
    for each in shown:
        suffix = "" if each.target.against_index is None else " against"
        maps[each.method + suffix] = each.heatmap.detach().cpu()
    section = f.Section(_title(image, predicted), tuple(blocks), lead=lead)
    return ImageExplanation(section=section, facts=facts, maps=maps)


def _predicted(loaded: LoadedModel, probs: Tensor, most_probable: str) -> str:
    """Return the predicted class, or the predicted classes separated by `;`."""
    calibration = loaded.run.label_calibration if loaded.run else None
    if calibration is None or loaded.labels is None:
        return most_probable
    return loaded.labels.decode(probs.numpy() >= calibration.thresholds)


def _attributions(
    options: ExplainOptions, compute: Callable[[str], Attribution]
) -> tuple[list[Attribution], list[f.Prose]]:
    """Return the maps of all methods that work for the network, and the other reasons.

    Raises:
        GeometryError: No method works, or the given layer has no maps.
    """
    attributions: list[Attribution] = []
    reasons: list[f.Prose] = []
    errors: list[GeometryError] = []
    for method in options.methods:
        try:
            attributions.append(compute(method))
        except GeometryError as error:
            if options.layer != AUTO:
                raise
            errors.append(error)
            name = "Grad-CAM" if method == AUTO else METHOD_NAMES[method]
            text = f"{name} is not available for this network: {error.what}."
            reasons.append(f.Prose(text, "warning"))
    if not attributions:
        raise errors[0]
    return attributions, reasons


def _title(image: ExplainedImage, predicted: str) -> str:
    shown = predicted or "none"
    if image.truth is None:
        return f"Prediction: {shown}"
    if image.truth == predicted:
        return f"Prediction: {shown} (correct)"
    return f"Prediction: {shown} (wrong, true class {image.truth or 'none'})"


def _attribute(
    loaded: LoadedModel,
    image: ExplainedImage,
    options: ExplainOptions,
    random_scores: RandomScores,
    method: str,
    against: ClassRef | None = None,
) -> Attribution:
    return attribute(
        loaded.model,
        image.x,
        method=method,
        target=options.target,
        against=against,
        layer=options.layer,
        labels=loaded.labels,
        temperature=loaded.temperature,
        to_probs=loaded.to_probs,
        sanity_checks=random_scores,
        seed=options.seed,
    )


def _other_class(
    loaded: LoadedModel,
    image: ExplainedImage,
    options: ExplainOptions,
    ranked: Sequence[int],
) -> int | None:
    """Return the class index to compare with: true class, or next most likely class."""
    others = [*ranked]
    if image.truth is not None and loaded.labels is not None:
        others.insert(0, loaded.labels.index(image.truth))
    own = _target_index(loaded, options, ranked)
    return next((i for i in others if i != own), None)


def _target_index(
    loaded: LoadedModel, options: ExplainOptions, ranked: Sequence[int]
) -> int:
    if options.target is None:
        return ranked[0]
    if isinstance(options.target, int) or loaded.labels is None:
        return int(options.target)
    return loaded.labels.index(options.target)


def _heatmaps(image: ExplainedImage, attributions: Sequence[Attribution]) -> f.Images:
    images: list[f.Image] = [to_image(enlarge(image.pixels, SIDE), "input image")]
    for each in attributions:
        heat = each.heatmap.detach().cpu().numpy()
        pixels = enlarge(overlay_heatmap(image.pixels, heat, each.signed), SIDE)
        images.append(to_image(pixels, _caption(each), _detail(each), palette=True))
    return f.Images(images=tuple(images), note=COLOR_NOTE)


@notebook_html.register
def attribution_card(each: Attribution) -> str:
    """Return a heatmap as HTML for a notebook, with the results of its checks."""
    heat = each.heatmap.detach().cpu().numpy()
    white = np.full((*heat.shape, 1), 255, np.uint8)
    pixels = enlarge(overlay_heatmap(white, heat, each.signed), SIDE)
    images = (to_image(pixels, _caption(each), _detail(each)),)
    blocks: list[f.Block] = [f.Images(images=images, note=COLOR_NOTE)]
    blocks += [_sanity_table([each])] if each.sanity_checks else []
    section = f.Section("", (*blocks, *_warnings(each)))
    return render_card(f"Heatmap of {each.target.text}", [section])


def _caption(each: Attribution) -> str:
    against = each.target.against_index is not None
    return METHOD_NAMES[each.method] + (f" ({each.target.text})" if against else "")


def _detail(each: Attribution) -> str:
    if each.sanity_checks is not None and each.sanity_checks.ignores_weights:
        return "DO NOT TRUST: same heatmap with shuffled weights"
    if _is_empty(each):
        return "empty: no positive evidence in this layer"
    return f"layer {each.layer.call}" if each.layer else "computed on the pixels"


def _sanity_table(attributions: Sequence[Attribution]) -> f.Table:
    layers = dict.fromkeys(
        f"Target layer {each.layer.call}: {each.layer.reason}."
        for each in attributions
        if each.layer
    )
    notes = [*layers, *(note for each in attributions for note in each.notes)]
    return f.Table(
        title="How reliable are these heatmaps? (sanity checks)",
        columns=CHECK_COLUMNS,
        rows=tuple(_row(each) for each in attributions),
        note=" ".join(notes),
    )


def _warnings(each: Attribution) -> Iterator[f.Prose]:
    """Yield a warning if a sanity check failed."""
    if _is_empty(each):
        text = (
            f"{_caption(each)} is empty: no position of this layer supports the class. "
            "Its sanity checks are meaningless. Try another layer or method."
        )
        yield f.Prose(text, "warning")
    elif each.sanity_checks is not None and each.sanity_checks.ignores_weights:
        text = (
            f"{_caption(each)} is almost the same with shuffled weights: it depends "
            "only on the image, not on what the network learned. Do not trust it."
        )
        yield f.Prose(text, "bad")
    elif each.sanity_checks is not None and not each.sanity_checks.beats_random:
        text = (
            f"{_caption(each)} is not better than random: neither deletion nor "
            "insertion beats a random pixel order."
        )
        yield f.Prose(text, "warning")


def _is_empty(each: Attribution) -> bool:
    return not each.signed and not bool(each.heatmap.any())


def _row(each: Attribution) -> tuple[f.Cell, ...]:
    checks = each.sanity_checks
    numbers: list[float | None] = [None] * 5
    if checks is not None:
        correlation = checks.shuffled_correlation
        numbers = [
            checks.deletion,
            checks.random_deletion,
            checks.insertion,
            checks.random_insertion,
            None if correlation is None else round(correlation, 2),
        ]
    layer = each.layer.call if each.layer else None
    return (METHOD_NAMES[each.method], each.target.text, layer, *numbers)
