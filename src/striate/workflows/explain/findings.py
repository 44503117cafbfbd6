"""Report page of `explain`: heatmaps, computation of scores, layers, extra sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from striate.core import findings as f
from striate.core.errors import GeometryError, SettingError
from striate.interpret.arithmetic.contributions import contributions
from striate.interpret.arithmetic.tree import arithmetic_tree
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.layer_choice import check_unit, layer_shapes, layers_with_maps
from striate.interpret.render import enlarge, overlay_heatmap, to_image
from striate.report.table_records import records, tree_dicts
from striate.run.run import Run
from striate.workflows.explain.attribution import SIDE, explain_image
from striate.workflows.explain.channel_selectivity import (
    ChannelPatches,
    find_channel_patches,
)
from striate.workflows.explain.dataset_heatmaps import dataset_section
from striate.workflows.explain.depth.findings import depth_section
from striate.workflows.explain.depth.nonlinearity import nonlinearity_section
from striate.workflows.explain.filters_and_maps import layer_sections
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.invariance import invariance_section
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import ExplainOptions, OnProgress, Unit
from striate.workflows.explain.unit import strongest_unit, unit_section

SUBTITLE = "Which parts of an image support the predicted class, and how."


@dataclass(frozen=True, kw_only=True)
class ExplainFindings:
    """Content of an explanation, before writing it to files."""

    page: f.Page
    data: dict[str, Any]
    maps: dict[str, Tensor]
    channel_patches: ChannelPatches | None


def explain_findings(
    loaded: LoadedModel, images: Sequence[ExplainedImage], options: ExplainOptions
) -> ExplainFindings:
    """Compute all sections of the report page for some images.

    Raises:
        UnknownNameError: Unknown layer, method, class or section.
        SettingError: The unit does not exist, or a section needs a dataset.
        GeometryError: An image does not fit, or the layer has no feature maps.
    """
    _check(loaded, images[0], options)
    explained = [explain_image(loaded, image, options) for image in images]
    first = images[0]
    image_data = [each.facts for each in explained]
    data: dict[str, Any] = {"network": loaded.name, "images": image_data}
    sections = [each.section for each in explained]
    arithmetic, error = _arithmetic(loaded, first)
    section, data["arithmetic"] = _arithmetic_section(
        loaded, first, arithmetic, image_data[0]["target"], error
    )
    sections.append(section)
    calls = layers_with_maps(loaded.model, first.x)
    unit = options.unit or ("output", (image_data[0]["target"],))
    if options.unit is None and calls:
        unit = strongest_unit(loaded, first, image_data[0]["layer"])
    channel_patches = find_channel_patches(loaded, calls)
    patches = _patches(loaded, channel_patches, unit)
    section, data["unit"] = unit_section(loaded, first, arithmetic, unit, patches)
    sections.append(section)
    layer_parts, layer_data = layer_sections(loaded, first, calls, channel_patches)
    extra, extra_data = _extra_sections(loaded, options)
    page = f.Page(
        f"Explanation of {loaded.name}",
        subtitle="\n\n".join((SUBTITLE, *loaded.remarks)),
        sections=(*sections, *layer_parts, *extra),
        footer="The model was not modified.",
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
    """Check the options of `explain` before the long computation starts."""
    if options.sections and loaded.run is None:
        what = f"{', '.join(options.sections)}: these sections need a dataset"
        fix = "explain a run, which has a dataset"
        raise SettingError(what, where=loaded.name, fix=fix)
    if options.unit is not None:
        layer, unit = options.unit
        shapes = layer_shapes(loaded.model, first.x)
        check_unit(layer, unit, shapes, loaded.model)


def _patches(
    loaded: LoadedModel, channel_patches: ChannelPatches | None, unit: Unit
) -> list[f.Block]:
    layer, place = unit
    if channel_patches is None or len(place) != 3:
        return []
    if all(each.call != layer for each in channel_patches.layers):  # a container
        channel_patches = find_channel_patches(loaded, [layer])
    return channel_patches.channel(layer, place[0]) if channel_patches else []


def _arithmetic(
    loaded: LoadedModel, image: ExplainedImage
) -> tuple[UnitArithmetic | None, str]:
    """Trace the computation of the logits; return the trace, or an error message."""
    try:
        return UnitArithmetic(loaded.model, image.x), ""
    except GeometryError as error:
        return None, f"Unit arithmetic is not available: {error.what}."


ExtraSection = Callable[[Run, OnProgress], tuple[f.Section, dict[str, Any]]]
EXTRA_SECTIONS: dict[str, ExtraSection] = {
    "dataset": lambda run, on_progress: dataset_section(run),
    "invariance": lambda run, on_progress: invariance_section(run),
    "depth": depth_section,
    "nonlinearity": lambda run, on_progress: nonlinearity_section(run),
}


def _extra_sections(
    loaded: LoadedModel, options: ExplainOptions
) -> tuple[list[f.Section], dict[str, Any]]:
    """Return the extra sections that are requested with `--sections`."""
    sections: list[f.Section] = []
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
) -> tuple[f.Section, dict[str, Any] | None]:
    """Return the report section on how the logit of the explained class is computed."""
    lead = (
        "The logit of the explained class as a sum. Open a line to see the values "
        "that it is computed from, down to single pixels."
    )
    title = "How the score is computed"
    if arithmetic is None:
        return f.Section(title, (f.Prose(error),)), None
    names = loaded.labels.names if loaded.labels else ()
    tree = arithmetic_tree(arithmetic, "output", (class_index,), names)
    table, image_block = _contribution_blocks(image, arithmetic, class_index)
    data = {"tree": tree_dicts(tree), "contributions": records(table)}
    return f.Section(title, (tree, table, image_block), lead=lead), data


def _contribution_blocks(
    image: ExplainedImage, arithmetic: UnitArithmetic, class_index: int
) -> tuple[f.Table, f.Images]:
    """Return the contributions of pixels and biases to a logit: table and image."""
    result = contributions(arithmetic, "output", (class_index,))
    steps = sorted(result.steps.items(), key=lambda item: -abs(item[1]))
    rows: list[tuple[f.Cell, ...]] = [("pixels", float(result.pixels.sum())), *steps]
    columns = (f.Column("Source", "code"), f.Column("Contribution", "number"))
    table = f.Table(
        title="Contribution of pixels and biases",
        columns=columns,
        rows=tuple(rows),
        totals=("logit", result.value),
        note="The contributions of all pixels and of the biases of every layer add "
        "up to the logit.",
    )
    heat = result.pixels.sum(0).cpu().numpy().astype(np.float64)
    pixels = enlarge(overlay_heatmap(image.pixels, heat, True), SIDE)
    return table, f.Images(images=(to_image(pixels, "contribution of each pixel"),))
