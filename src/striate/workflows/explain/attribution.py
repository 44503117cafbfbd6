"""Why this answer? An image's evidence, each map with what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from striate.core.findings import (
    Block,
    Cell,
    Column,
    Figure,
    Figures,
    Image,
    Images,
    Prose,
    Section,
    Table,
)
from striate.core.hooks import untouched
from striate.interpret.activations_at import forward
from striate.interpret.attribution.attribute import Attribution, attribute
from striate.interpret.attribution.target import logits_of
from striate.interpret.render import enlarge, overlay_heatmap, to_image
from striate.report.format import percent
from striate.report.records import records
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import ExplainOptions

SIDE = 196  # pixels an image of evidence is drawn high, at least
TOP = 3  # answers shown

METHOD_NAMES = {
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "layercam": "LayerCAM",
    "scorecam": "Score-CAM",
    "occlusion": "Occlusion",
    "integrated": "Integrated gradients",
}


CHECK_COLUMNS = (
    Column(title="Method", key="method"),
    Column(title="About", key="about", rank=1),
    Column(title="Layer", kind="code", key="layer", rank=2),
    Column(
        title="Deletion",
        kind="percent",
        key="deletion",
        hint="mean probability while its best pixels go first; low is good",
    ),
    Column(
        title="Deletion, random",
        kind="percent",
        key="deletion_by_chance",
        hint="the same in random order",
        rank=3,
    ),
    Column(
        title="Insertion",
        kind="percent",
        key="insertion",
        hint="mean probability while its best pixels come first; high is good",
    ),
    Column(
        title="Insertion, random",
        kind="percent",
        key="insertion_by_chance",
        hint="the same in random order",
        rank=3,
    ),
    Column(
        title="Shuffled weights",
        kind="number",
        key="randomized",
        hint="rank correlation with maps of the network with shuffled weights; "
        "near 0 is good, above 0.5 is a red stamp",
    ),
)


@dataclass(frozen=True, kw_only=True)
class ImageExplanation:
    """What is said about one image.

    Args:
        section: For people.
        facts: For programs.
        maps: The numbers behind its maps, by method, at the image's size.
    """

    section: Section
    facts: dict[str, Any]
    maps: dict[str, Tensor]


def explain_image(
    loaded: LoadedModel, image: ExplainedImage, options: ExplainOptions
) -> ImageExplanation:
    """Ask a network about one image, and every method about the answer."""
    labels = loaded.labels.names if loaded.labels else None
    with untouched(loaded.model), torch.no_grad():
        probs = logits_of(forward(loaded.model, image.x)).softmax(1)[0]
    ranked = probs.argsort(descending=True)[: TOP + 1].tolist()
    attributions = [
        _attribution(loaded, image, options, method) for method in options.methods
    ]
    contrast = _against(loaded, image, options, ranked)
    figures = tuple(
        Figure(
            label=labels[i] if labels else f"class {i}", value=percent(float(probs[i]))
        )
        for i in ranked[:TOP]
    )
    attributions_shown = [*attributions, *([contrast] if contrast else [])]
    blocks: list[Block] = [
        Figures(figures=figures),
        _heatmaps(image, attributions_shown),
    ]
    blocks += _sanity_checks(attributions_shown)
    truth = f" It is labeled {image.truth}." if image.truth else ""
    target = attributions[0].target
    lead = f"{image.name}.{truth} The evidence is for {target.text}."
    table = next(block for block in blocks if isinstance(block, Table))
    facts = {
        "image": image.name,
        "truth": image.truth,
        "answers": [
            {"class": labels[i] if labels else i, "probability": float(probs[i])}
            for i in ranked
        ],
        "target": target.target,
        "question": target.text,
        "layer": next((e.layer.call for e in attributions if e.layer), None),
        "evidence": records(table),
    }
    title = _title(image, labels[ranked[0]] if labels else f"class {ranked[0]}")
    return ImageExplanation(
        section=Section(title=title, lead=lead, blocks=tuple(blocks)),
        facts=facts,
        maps={
            _map_name(each): each.heatmap.detach().cpu() for each in attributions_shown
        },
    )


def _map_name(each: Attribution) -> str:
    return each.method if each.target.against is None else f"{each.method} against"


def _title(image: ExplainedImage, answer: str) -> str:
    if image.truth is None or image.truth == answer:
        return f"Why {answer}?"
    return f"Why {answer}, not {image.truth}?"


def _attribution(
    loaded: LoadedModel, image: ExplainedImage, options: ExplainOptions, method: str
) -> Attribution:
    return attribute(
        loaded.model,
        image.x,
        method=method,
        target=options.target,
        layer=options.layer,
        labels=loaded.labels,
        seed=options.seed,
    )


def _against(
    loaded: LoadedModel,
    image: ExplainedImage,
    options: ExplainOptions,
    ranked: Sequence[int],
) -> Attribution | None:
    """Hold the answer against the class asked for, the truth, or the runner-up."""
    against: int | str | None = options.against
    if against is None:
        own = _target_index(loaded, options, ranked)
        others = [i for i in ranked if i != own]
        if image.truth is not None and loaded.labels is not None:
            others = [
                i for i in [loaded.labels.index(image.truth)] if i != own
            ] + others
        if not others:
            return None
        against = others[0]
    return attribute(
        loaded.model,
        image.x,
        method=options.methods[0],
        target=options.target,
        against=against,
        layer=options.layer,
        labels=loaded.labels,
        seed=options.seed,
    )


def _target_index(
    loaded: LoadedModel, options: ExplainOptions, ranked: Sequence[int]
) -> int:
    if options.target is None:
        return ranked[0]
    if isinstance(options.target, int) or loaded.labels is None:
        return int(options.target)
    return loaded.labels.index(options.target)


def _heatmaps(image: ExplainedImage, attributions: Sequence[Attribution]) -> Images:
    images: list[Image] = [to_image(enlarge(image.pixels, SIDE), "the image")]
    for each in attributions:
        heat = each.heatmap.detach().cpu().numpy()
        pixels = enlarge(overlay_heatmap(image.pixels, heat, each.signed), SIDE)
        images.append(to_image(pixels, _caption(each), _detail(each)))
    note = "Amber: how much speaks for it. Red speaks for it, blue against it."
    return Images(images=tuple(images), note=note)


def _caption(each: Attribution) -> str:
    words = METHOD_NAMES[each.method]
    return words if each.target.against is None else f"{words}, {each.target.text}"


def _detail(each: Attribution) -> str:
    if each.sanity_checks is not None and each.sanity_checks.ignores_weights:
        return "RED STAMP: does not depend on the weights"
    if _is_empty(each):
        return "empty: on balance nothing there speaks for it"
    return f"at {each.layer.call}" if each.layer else "in the image itself"


def _sanity_checks(attributions: Sequence[Attribution]) -> list[Block]:
    """Return the trust marks as a table, and a red stamp for each blind map."""
    rows = tuple(_row(each) for each in attributions)
    layers = dict.fromkeys(
        f"{each.layer.call}: {each.layer.reason}."
        for each in attributions
        if each.layer
    )
    notes = [*layers, *(note for each in attributions for note in each.notes)]
    blocks: list[Block] = [
        Table(
            title="Trust marks", columns=CHECK_COLUMNS, rows=rows, note=" ".join(notes)
        )
    ]
    for each in attributions:
        if _is_empty(each):
            text = (
                f"{_caption(each)} is empty: weighed together, the layer's maps speak "
                "against the answer everywhere. Its marks are those of an arbitrary "
                "order; look at another layer or method."
            )
            blocks.append(Prose(text=text, tone="warning"))
        elif each.sanity_checks is not None and each.sanity_checks.ignores_weights:
            text = (
                f"{_caption(each)} looks the same with shuffled weights: it shows the "
                "image, not what the network learned. Do not read it as evidence."
            )
            blocks.append(Prose(text=text, tone="bad"))
        elif each.sanity_checks is not None and not each.sanity_checks.beats_random:
            text = (
                f"{_caption(each)} finds what counts no better than chance: neither "
                "deletion nor insertion beats a random order of pixels."
            )
            blocks.append(Prose(text=text, tone="warning"))
    return blocks


def _is_empty(each: Attribution) -> bool:
    return not each.signed and not bool(each.heatmap.any())


def _row(each: Attribution) -> tuple[Cell, ...]:
    checks = each.sanity_checks
    if checks is None:
        numbers: tuple[Cell, ...] = (None,) * 5
    else:
        numbers = (
            checks.deletion,
            checks.random_deletion,
            checks.insertion,
            checks.random_insertion,
            None
            if checks.shuffled_correlation is None
            else round(checks.shuffled_correlation, 2),
        )
    layer = each.layer.call if each.layer else None
    return (METHOD_NAMES[each.method], each.target.text, layer, *numbers)
