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
from striate.interpret.arithmetic.contributions import contributions
from striate.interpret.arithmetic.tree import arithmetic_tree
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.layer_choice import check_unit, layer_shapes
from striate.interpret.render import enlarge, overlay_heatmap, to_image
from striate.report.records import nodes, records
from striate.run.run import Run
from striate.workflows.explain.attribution import SIDE, explain_image
from striate.workflows.explain.channels import ChannelPatches, find_channel_patches
from striate.workflows.explain.dataset import dataset_section
from striate.workflows.explain.depth.findings import depth_section
from striate.workflows.explain.depth.nonlinearity import nonlinearity_section
from striate.workflows.explain.filters_and_maps import layer_sections, map_layers
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.invariance import invariance_section
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import ExplainOptions, OnProgress, Unit
from striate.workflows.explain.unit import strongest_unit, unit_section


@dataclass(frozen=True, kw_only=True)
class ExplainFindings:
    """An explanation before it is written.

    Args:
        page: For people.
        data: For programs.
        maps: The evidence's numbers, by image and method, (1, H, W).
        channel_patches: What channels look for, where there is a set to look at.
    """

    page: Page
    data: dict[str, Any]
    maps: dict[str, Tensor]
    channel_patches: ChannelPatches | None


def explain_findings(
    loaded: LoadedModel, images: Sequence[ExplainedImage], options: ExplainOptions
) -> ExplainFindings:
    """Look at images, and return what there is to say.

    Raises:
        UnknownNameError: A layer, method, class or part has no such name.
        SettingError: There is no such unit, or no set to look at.
        GeometryError: An image does not fit, or a layer asked for has no maps.
    """
    _check(loaded, images[0], options)
    explained = [explain_image(loaded, image, options) for image in images]
    first = images[0]
    image_data = [each.facts for each in explained]
    data: dict[str, Any] = {"network": loaded.name, "images": image_data}
    sections = [each.section for each in explained]
    arithmetic, error = _arithmetic(loaded, first)
    section, data["ledger"] = _arithmetic_section(
        loaded, first, arithmetic, image_data[0]["target"], error
    )
    sections.append(section)
    calls = map_layers(loaded, first)
    unit = options.unit or ("output", (image_data[0]["target"],))
    if options.unit is None and calls:
        unit = strongest_unit(loaded, first, image_data[0]["layer"])
    channel_patches = find_channel_patches(loaded, calls)
    patches = _patches(loaded, channel_patches, unit)
    section, data["unit"] = unit_section(loaded, first, arithmetic, unit, patches)
    sections.append(section)
    layer_parts, layer_data = layer_sections(loaded, first, calls, channel_patches)
    extra, extra_data = _extra_sections(loaded, options)
    page = Page(
        title=f"Inside {loaded.name}",
        subtitle="What the network saw, and why it answered so.",
        sections=(*sections, *layer_parts, *extra),
        footer="The network was left as it was. Every figure is computed, none drawn.",
    )
    maps = {
        f"{i} {key}": heat[None]
        for i, each in enumerate(explained, 1)
        for key, heat in each.maps.items()
    }
    data |= {**layer_data, **extra_data}
    return ExplainFindings(
        page=page, data=data, maps=maps, channel_patches=channel_patches
    )


def _check(loaded: LoadedModel, first: ExplainedImage, options: ExplainOptions) -> None:
    """Refuse before an hour's work what cannot be shown at its end."""
    if options.sections and loaded.run is None:
        what = f"{', '.join(options.sections)}: there is no set to look at"
        raise SettingError(what, where=loaded.name, fix="explain a run")
    if options.unit is not None:
        layer, unit = options.unit
        shapes = layer_shapes(loaded.model, first.x)
        check_unit(layer, unit, shapes, loaded.model)


def _patches(
    loaded: LoadedModel, channel_patches: ChannelPatches | None, unit: Unit
) -> list[Block]:
    layer, place = unit
    if channel_patches is None or len(place) != 3:
        return []
    if layer not in [
        each.call for each in channel_patches.layers
    ]:  # a container of others
        channel_patches = find_channel_patches(loaded, [layer])
    return (
        channel_patches.channel(layer, place[0]) if channel_patches is not None else []
    )


def _arithmetic(
    loaded: LoadedModel, image: ExplainedImage
) -> tuple[UnitArithmetic | None, str]:
    """Return the image's ledger; where it cannot be kept, the reason."""
    try:
        return UnitArithmetic(loaded.model, image.x), ""
    except GeometryError as error:
        return None, f"There is no ledger here: {error.what}."


ExtraSection = Callable[[Run, OnProgress], tuple[Section, dict[str, Any]]]
EXTRA_SECTIONS: dict[str, ExtraSection] = {
    "set": lambda run, on_progress: dataset_section(run),
    "invariance": lambda run, on_progress: invariance_section(run),
    "depth": depth_section,
    "bend": lambda run, on_progress: nonlinearity_section(run),
}


def _extra_sections(
    loaded: LoadedModel, options: ExplainOptions
) -> tuple[list[Section], dict[str, Any]]:
    """Return the parts that were asked for besides; of a run."""
    sections: list[Section] = []
    data: dict[str, Any] = {}
    if loaded.run is None:
        return sections, data
    for name in options.sections:
        section, data[name] = EXTRA_SECTIONS[name](loaded.run, options.on_progress)
        sections.append(section)
    return sections, data


def _arithmetic_section(
    loaded: LoadedModel,
    image: ExplainedImage,
    arithmetic: UnitArithmetic | None,
    class_index: int,
    error: str,
) -> tuple[Section, dict[str, Any] | None]:
    """Open the answer's logit, and share it out to the pixels."""
    lead = (
        "The sum behind the answer. Open a line to see the numbers it is made of, down "
        "to single pixels."
    )
    title = "The ledger"
    if arithmetic is None:
        return Section(title=title, blocks=(Prose(text=error),)), None
    names = loaded.labels.names if loaded.labels else ()
    tree = arithmetic_tree(arithmetic, "output", (class_index,), names)
    table, image_block = _contribution_blocks(image, arithmetic, class_index)
    data = {"opened": nodes(tree), "down": records(table)}
    return Section(title=title, lead=lead, blocks=(tree, table, image_block)), data


def _contribution_blocks(
    image: ExplainedImage, arithmetic: UnitArithmetic, class_index: int
) -> tuple[Table, Images]:
    """Say what pixels add to the logit, and what layers do."""
    result = contributions(arithmetic, "output", (class_index,))
    steps = sorted(result.steps.items(), key=lambda item: -abs(item[1]))
    rows: list[tuple[Cell, ...]] = [("pixels", float(result.pixels.sum())), *steps]
    columns = (
        Column(title="From", kind="code", key="from"),
        Column(title="Adds", kind="number", key="adds"),
    )
    table = Table(
        title="All the way down",
        columns=columns,
        rows=tuple(rows),
        totals=("the number itself", result.value),
        note="What every pixel adds, and every layer's biases; together they are the "
        "logit.",
    )
    heat = result.pixels.sum(0).cpu().numpy().astype(np.float64)
    image_block = to_image(
        enlarge(overlay_heatmap(image.pixels, heat, True), SIDE), "what each pixel adds"
    )
    return table, Images(images=(image_block,))
