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
from striate.core.hooks import evaluation_mode
from striate.interpret.activations_at import forward
from striate.interpret.attribution.attribute import Evidence, evidence
from striate.interpret.attribution.target import logits_of
from striate.interpret.render import enlarge, overlay, to_image
from striate.report.format import percent
from striate.report.records import records
from striate.workflows.explain.images import Shown, Wish
from striate.workflows.explain.subject import Subject

SIDE = 196  # pixels an image of evidence is drawn high, at least
TOP = 3  # answers shown

WORDS = {
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "layercam": "LayerCAM",
    "scorecam": "Score-CAM",
    "occlusion": "Occlusion",
    "integrated": "Integrated gradients",
}


MARKS = (
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
class Answer:
    """What is said about one image.

    Args:
        section: For people.
        facts: For programs.
        maps: The numbers behind its maps, by method, at the image's size.
    """

    section: Section
    facts: dict[str, Any]
    maps: dict[str, Tensor]


def answered(subject: Subject, one: Shown, wish: Wish) -> Answer:
    """Ask a network about one image, and every method about the answer."""
    names = subject.labels.names if subject.labels else None
    with evaluation_mode(subject.model), torch.no_grad():
        probs = logits_of(forward(subject.model, one.x)).softmax(1)[0]
    ranked = probs.argsort(descending=True)[: TOP + 1].tolist()
    found = [_evidence(subject, one, wish, method) for method in wish.methods]
    contrast = _contrast(subject, one, wish, ranked)
    figures = tuple(
        Figure(
            label=names[i] if names else f"class {i}", value=percent(float(probs[i]))
        )
        for i in ranked[:TOP]
    )
    everything = [*found, *([contrast] if contrast else [])]
    blocks: list[Block] = [Figures(figures=figures), _gallery(one, everything)]
    blocks += _marks(everything)
    truth = f" It is labeled {one.truth}." if one.truth else ""
    question = found[0].question
    lead = f"{one.name}.{truth} The evidence is for {question.words}."
    table = next(block for block in blocks if isinstance(block, Table))
    facts = {
        "image": one.name,
        "truth": one.truth,
        "answers": [
            {"class": names[i] if names else i, "probability": float(probs[i])}
            for i in ranked
        ],
        "target": question.target,
        "question": question.words,
        "layer": next((e.layer.call for e in found if e.layer), None),
        "evidence": records(table),
    }
    title = _title(one, names[ranked[0]] if names else f"class {ranked[0]}")
    return Answer(
        section=Section(title=title, lead=lead, blocks=tuple(blocks)),
        facts=facts,
        maps={_key(each): each.heat.detach().cpu() for each in everything},
    )


def _key(each: Evidence) -> str:
    return each.method if each.question.against is None else f"{each.method} against"


def _title(one: Shown, answer: str) -> str:
    if one.truth is None or one.truth == answer:
        return f"Why {answer}?"
    return f"Why {answer}, not {one.truth}?"


def _evidence(subject: Subject, one: Shown, wish: Wish, method: str) -> Evidence:
    return evidence(
        subject.model,
        one.x,
        method=method,
        target=wish.target,
        layer=wish.layer,
        labels=subject.labels,
        seed=wish.seed,
    )


def _contrast(
    subject: Subject, one: Shown, wish: Wish, ranked: Sequence[int]
) -> Evidence | None:
    """Hold the answer against the class asked for, the truth, or the runner-up."""
    against: int | str | None = wish.against
    if against is None:
        own = _number(subject, wish, ranked)
        others = [i for i in ranked if i != own]
        if one.truth is not None and subject.labels is not None:
            others = [i for i in [subject.labels.index(one.truth)] if i != own] + others
        if not others:
            return None
        against = others[0]
    return evidence(
        subject.model,
        one.x,
        method=wish.methods[0],
        target=wish.target,
        against=against,
        layer=wish.layer,
        labels=subject.labels,
        seed=wish.seed,
    )


def _number(subject: Subject, wish: Wish, ranked: Sequence[int]) -> int:
    if wish.target is None:
        return ranked[0]
    if isinstance(wish.target, int) or subject.labels is None:
        return int(wish.target)
    return subject.labels.index(wish.target)


def _gallery(one: Shown, found: Sequence[Evidence]) -> Images:
    drawn: list[Image] = [to_image(enlarge(one.pixels, SIDE), "the image")]
    for each in found:
        heat = each.heat.detach().cpu().numpy()
        pixels = enlarge(overlay(one.pixels, heat, each.signed), SIDE)
        drawn.append(to_image(pixels, _caption(each), _detail(each)))
    note = "Amber: how much speaks for it. Red speaks for it, blue against it."
    return Images(images=tuple(drawn), note=note)


def _caption(each: Evidence) -> str:
    words = WORDS[each.method]
    return words if each.question.against is None else f"{words}, {each.question.words}"


def _detail(each: Evidence) -> str:
    if each.trust is not None and each.trust.blind:
        return "RED STAMP: does not depend on the weights"
    if _is_empty(each):
        return "empty: on balance nothing there speaks for it"
    return f"at {each.layer.call}" if each.layer else "in the image itself"


def _marks(found: Sequence[Evidence]) -> list[Block]:
    """Return the trust marks as a table, and a red stamp for each blind map."""
    rows = tuple(_row(each) for each in found)
    where = dict.fromkeys(
        f"{each.layer.call}: {each.layer.why}." for each in found if each.layer
    )
    notes = [*where, *(note for each in found for note in each.notes)]
    blocks: list[Block] = [
        Table(title="Trust marks", columns=MARKS, rows=rows, note=" ".join(notes))
    ]
    for each in found:
        if _is_empty(each):
            text = (
                f"{_caption(each)} is empty: weighed together, the layer's maps speak "
                "against the answer everywhere. Its marks are those of an arbitrary "
                "order; look at another layer or method."
            )
            blocks.append(Prose(text=text, tone="warning"))
        elif each.trust is not None and each.trust.blind:
            text = (
                f"{_caption(each)} looks the same with shuffled weights: it shows the "
                "image, not what the network learned. Do not read it as evidence."
            )
            blocks.append(Prose(text=text, tone="bad"))
        elif each.trust is not None and not each.trust.beats_chance:
            text = (
                f"{_caption(each)} finds what counts no better than chance: neither "
                "deletion nor insertion beats a random order of pixels."
            )
            blocks.append(Prose(text=text, tone="warning"))
    return blocks


def _is_empty(each: Evidence) -> bool:
    return not each.signed and not bool(each.heat.any())


def _row(each: Evidence) -> tuple[Cell, ...]:
    marks = each.trust
    if marks is None:
        numbers: tuple[Cell, ...] = (None,) * 5
    else:
        numbers = (
            marks.deletion,
            marks.deletion_by_chance,
            marks.insertion,
            marks.insertion_by_chance,
            None if marks.randomized is None else round(marks.randomized, 2),
        )
    layer = each.layer.call if each.layer else None
    return (WORDS[each.method], each.question.words, layer, *numbers)
