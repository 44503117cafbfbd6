"""The page of an explanation: evidence, ledger, one unit, layers, and what else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from striate.core.errors import GeometryError, SettingError
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Images,
    Page,
    Prose,
    Section,
    Table,
)
from striate.interpret.arithmetic.contributions import shares
from striate.interpret.arithmetic.tree import opened
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.layer_choice import calls_of, check_unit
from striate.interpret.render import enlarge, overlay, to_image
from striate.report.records import records, tree_dicts
from striate.run.run import Run
from striate.workflows.explain.attribution import SIDE, answered
from striate.workflows.explain.channels import LookedFor, look_for
from striate.workflows.explain.dataset import whole_section
from striate.workflows.explain.depth.findings import depth_section
from striate.workflows.explain.depth.nonlinearity import bend_section
from striate.workflows.explain.images import Shown, Told, Unit, Wish
from striate.workflows.explain.invariance import invariance_section
from striate.workflows.explain.layers import inner_maps, layer_sections
from striate.workflows.explain.subject import Subject
from striate.workflows.explain.unit import strongest, unit_section


@dataclass(frozen=True, kw_only=True)
class Story:
    """An explanation before it is written.

    Args:
        page: For people.
        data: For programs.
        maps: The evidence's numbers, by image and method, (1, H, W).
        looked_for: What channels look for, where there is a set to look at.
    """

    page: Page
    data: dict[str, Any]
    maps: dict[str, Tensor]
    looked_for: LookedFor | None


def story(subject: Subject, images: Sequence[Shown], wish: Wish) -> Story:
    """Look at images, and return what there is to say.

    Raises:
        UnknownNameError: A layer, method, class or part has no such name.
        SettingError: There is no such unit, or no set to look at.
        GeometryError: An image does not fit, or a layer asked for has no maps.
    """
    _check(subject, images[0], wish)
    answers = [answered(subject, one, wish) for one in images]
    first = images[0]
    facts = [one.facts for one in answers]
    data: dict[str, Any] = {"network": subject.name, "images": facts}
    sections = [one.section for one in answers]
    book, refused = _book(subject, first)
    section, data["ledger"] = _ledger(subject, first, book, facts[0]["target"], refused)
    sections.append(section)
    calls = inner_maps(subject, first)
    unit = wish.unit or ("output", (facts[0]["target"],))
    if wish.unit is None and calls:
        unit = strongest(subject, first, facts[0]["layer"])
    looked = look_for(subject, calls)
    patches = _patches(subject, looked, unit)
    section, data["unit"] = unit_section(subject, first, book, unit, patches)
    sections.append(section)
    inner, facts_of_layers = layer_sections(subject, first, calls, looked)
    more, found = _also(subject, wish)
    page = Page(
        title=f"Inside {subject.name}",
        subtitle="What the network saw, and why it answered so.",
        sections=(*sections, *inner, *more),
        footer="The network was left as it was. Every figure is computed, none drawn.",
    )
    maps = {
        f"{i} {key}": heat[None]
        for i, one in enumerate(answers, 1)
        for key, heat in one.maps.items()
    }
    data |= {**facts_of_layers, **found}
    return Story(page=page, data=data, maps=maps, looked_for=looked)


def _check(subject: Subject, first: Shown, wish: Wish) -> None:
    """Refuse before an hour's work what cannot be shown at its end."""
    if wish.also and subject.run is None:
        what = f"{', '.join(wish.also)}: there is no set to look at"
        raise SettingError(what, where=subject.name, fix="explain a run")
    if wish.unit is not None:
        call, unit = wish.unit
        shapes = calls_of(subject.model, first.x)
        check_unit(call, unit, shapes, subject.model)


def _patches(subject: Subject, looked: LookedFor | None, unit: Unit) -> list[Block]:
    call, place = unit
    if looked is None or len(place) != 3:
        return []
    if call not in [one.call for one in looked.found]:  # a container of others
        looked = look_for(subject, [call])
    return looked.channel(call, place[0]) if looked is not None else []


def _book(subject: Subject, one: Shown) -> tuple[UnitArithmetic | None, str]:
    """Return the image's ledger; where it cannot be kept, the reason."""
    try:
        return UnitArithmetic(subject.model, one.x), ""
    except GeometryError as error:
        return None, f"There is no ledger here: {error.what}."


Also = Callable[[Run, Told], tuple[Section, dict[str, Any]]]
ALSO: dict[str, Also] = {
    "set": lambda run, told: whole_section(run),
    "invariance": lambda run, told: invariance_section(run),
    "depth": depth_section,
    "bend": lambda run, told: bend_section(run),
}


def _also(subject: Subject, wish: Wish) -> tuple[list[Section], dict[str, Any]]:
    """Return the parts that were asked for besides; of a run."""
    sections: list[Section] = []
    data: dict[str, Any] = {}
    if subject.run is None:
        return sections, data
    for name in wish.also:
        section, data[name] = ALSO[name](subject.run, wish.told)
        sections.append(section)
    return sections, data


def _ledger(
    subject: Subject, one: Shown, book: UnitArithmetic | None, answer: int, refused: str
) -> tuple[Section, dict[str, Any] | None]:
    """Open the answer's logit, and share it out to the pixels."""
    lead = (
        "The sum behind the answer. Open a line to see the numbers it is made of, down "
        "to single pixels."
    )
    title = "The ledger"
    if book is None:
        return Section(title=title, blocks=(Prose(text=refused),)), None
    names = subject.labels.names if subject.labels else ()
    tree = opened(book, "output", (answer,), names)
    table, drawn = _down(one, book, answer)
    data = {"opened": tree_dicts(tree), "down": records(table)}
    return Section(title=title, lead=lead, blocks=(tree, table, drawn)), data


def _down(one: Shown, book: UnitArithmetic, answer: int) -> tuple[Table, Images]:
    """Say what pixels add to the logit, and what layers do."""
    found = shares(book, "output", (answer,))
    steps = sorted(found.steps.items(), key=lambda item: -abs(item[1]))
    rows: list[tuple[Cell, ...]] = [("pixels", float(found.pixels.sum())), *steps]
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
    heat = found.pixels.sum(0).cpu().numpy().astype(np.float64)
    drawn = to_image(
        enlarge(overlay(one.pixels, heat, True), SIDE), "what each pixel adds"
    )
    return table, Images(images=(drawn,))
