"""The page of an explanation: evidence, ledger, fields, maps, patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from striate.core.errors import SettingError
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Figure,
    Figures,
    Images,
    Page,
    Picture,
    Prose,
    Section,
    Table,
)
from striate.core.taps import untouched
from striate.look.capture import forward
from striate.look.evidence.evidence import Evidence, evidence
from striate.look.evidence.question import logits_of
from striate.look.ledger.ledger import Ledger
from striate.look.ledger.opening import opened
from striate.look.ledger.shares import shares
from striate.look.raster import enlarge, overlay, picture
from striate.report.plain import records
from striate.report.words import percent
from striate.runs.depth.bend import bend_section
from striate.runs.depth.page import depth_section
from striate.runs.explain.invariance import invariance_section
from striate.runs.explain.layers import field_section, layer_sections
from striate.runs.explain.shown import Shown, Told, Wish
from striate.runs.explain.subject import Subject
from striate.runs.explain.whole import whole_section
from striate.runs.run import Run

SIDE = 196  # pixels a picture of evidence is drawn high, at least
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
        key="randomised",
        hint="rank correlation with maps of the network with shuffled weights; "
        "near 0 is good, above 0.5 is a red stamp",
    ),
)


def story(
    subject: Subject, pictures: Sequence[Shown], wish: Wish
) -> tuple[Page, dict[str, Any]]:
    """Return the page about pictures, and the same for programs."""
    sections: list[Section] = []
    data: list[dict[str, Any]] = []
    for one in pictures:
        section, facts = _answer(subject, one, wish)
        sections.append(section)
        data.append(facts)
    first = pictures[0]
    book = Ledger(subject.model, first.x)
    answer = data[0]["target"]
    sections.append(_ledger(subject, first, book, answer, wish))
    sections.append(field_section(subject, first, data[0]["layer"], wish))
    sections.extend(layer_sections(subject, first))
    more, found = _also(subject, wish)
    sections.extend(more)
    page = Page(
        title=f"Inside {subject.name}",
        subtitle="What the network saw, and why it answered so.",
        sections=tuple(sections),
        footer="The network was left as it was. Every figure is computed, none drawn.",
    )
    return page, {"network": subject.name, "pictures": data, **found}


Also = Callable[[Run, Told], tuple[Section, dict[str, Any]]]
ALSO: dict[str, Also] = {
    "set": lambda run, told: whole_section(run),
    "invariance": lambda run, told: invariance_section(run),
    "depth": depth_section,
    "bend": lambda run, told: bend_section(run),
}


def _also(subject: Subject, wish: Wish) -> tuple[list[Section], dict[str, Any]]:
    """Return the parts that were asked for besides.

    Raises:
        SettingError: The network is of no run, so that there is no set.
    """
    if wish.also and subject.run is None:
        what = f"{', '.join(wish.also)}: there is no set to look at"
        raise SettingError(what, where=subject.name, fix="explain a run")
    sections, data = [], {}
    for name in wish.also:
        assert subject.run is not None  # noqa: S101 - refused above
        section, data[name] = ALSO[name](subject.run, wish.told)
        sections.append(section)
    return sections, data


def _answer(subject: Subject, one: Shown, wish: Wish) -> tuple[Section, dict[str, Any]]:
    names = subject.labels.names if subject.labels else None
    with untouched(subject.model), torch.no_grad():
        odds = logits_of(forward(subject.model, one.x)).softmax(1)[0]
    ranked = odds.argsort(descending=True)[: TOP + 1].tolist()
    found = [_evidence(subject, one, wish, method) for method in wish.methods]
    contrast = _contrast(subject, one, wish, ranked)
    figures = tuple(
        Figure(label=names[i] if names else f"class {i}", value=percent(float(odds[i])))
        for i in ranked[:TOP]
    )
    everything = [*found, *([contrast] if contrast else [])]
    blocks: list[Block] = [Figures(figures=figures), _gallery(one, everything)]
    blocks += _marks(everything)
    truth = f" It is labelled {one.truth}." if one.truth else ""
    question = found[0].question
    lead = f"{one.name}.{truth} The evidence is for {question.words}."
    table = next(block for block in blocks if isinstance(block, Table))
    facts = {
        "picture": one.name,
        "truth": one.truth,
        "answers": [
            {"class": names[i] if names else i, "probability": float(odds[i])}
            for i in ranked
        ],
        "target": question.target,
        "question": question.words,
        "layer": next((e.layer.call for e in found if e.layer), None),
        "evidence": records(table),
    }
    title = _title(one, names[ranked[0]] if names else f"class {ranked[0]}")
    return Section(title=title, lead=lead, blocks=tuple(blocks)), facts


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
    drawn: list[Picture] = [picture(enlarge(one.pixels, SIDE), "the picture")]
    for each in found:
        heat = each.heat.detach().cpu().numpy()
        pixels = enlarge(overlay(one.pixels, heat, each.signed), SIDE)
        drawn.append(picture(pixels, _caption(each), _detail(each)))
    note = "Amber: how much speaks for it. Red speaks for it, blue against it."
    return Images(pictures=tuple(drawn), note=note)


def _caption(each: Evidence) -> str:
    words = WORDS[each.method]
    return words if each.question.against is None else f"{words}, {each.question.words}"


def _detail(each: Evidence) -> str:
    if each.trust is not None and each.trust.blind:
        return "RED STAMP: does not depend on the weights"
    if _is_empty(each):
        return "empty: on balance nothing there speaks for it"
    return f"at {each.layer.call}" if each.layer else "in the picture itself"


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
                "picture, not what the network learnt. Do not read it as evidence."
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
            None if marks.randomised is None else round(marks.randomised, 2),
        )
    layer = each.layer.call if each.layer else None
    return (WORDS[each.method], each.question.words, layer, *numbers)


def _ledger(
    subject: Subject, one: Shown, book: Ledger, answer: int, wish: Wish
) -> Section:
    """Open the answer's logit, and the unit asked for."""
    names = subject.labels.names if subject.labels else ()
    blocks: list[Block] = [opened(book, "output", (answer,), names)]
    found = shares(book, "output", (answer,))
    pixels = float(found.pixels.sum())
    steps = sorted(found.steps.items(), key=lambda item: -abs(item[1]))
    rows: list[tuple[Cell, ...]] = [("pixels", pixels), *steps]
    columns = (
        Column(title="From", kind="code", key="from"),
        Column(title="Adds", kind="number", key="adds"),
    )
    table = Table(
        title="All the way down",
        columns=columns,
        rows=tuple(rows),
        totals=("the number itself", found.value),
        note="What every pixel adds, and every layer's biases; together they are the "
        "logit.",
    )
    heat = found.pixels.sum(0).numpy().astype(np.float64)
    drawn = picture(
        enlarge(overlay(one.pixels, heat, True), SIDE), "what each pixel adds"
    )
    blocks += [table, Images(pictures=(drawn,))]
    if wish.unit is not None:
        blocks.append(opened(book, *wish.unit, names))
    lead = (
        "The sum behind the answer. Open a line to see the numbers it is made of, down "
        "to single pixels."
    )
    return Section(title="The ledger", lead=lead, blocks=tuple(blocks))
