"""Report page of `explain`: heatmaps, computation of scores, layers, extra sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from striate.core import findings as f
from striate.core.errors import SettingError
from striate.interpret.arithmetic.contributions import contributions
from striate.interpret.arithmetic.tree import arithmetic_tree
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.layer_choice import (
    check_layer,
    check_unit,
    layer_shapes,
    layers_with_maps,
)
from striate.interpret.render import enlarge, overlay_heatmap, to_image
from striate.report.table_records import records, tree_dicts
from striate.run.run import Run
from striate.workflows.explain.attribution import SIDE, ImageExplanation, explain_image
from striate.workflows.explain.channel_sections import (
    ablation_section,
    check_channels,
    visualization_section,
)
from striate.workflows.explain.channel_selectivity import (
    ChannelPatches,
    channel_layers,
    find_channel_patches,
)
from striate.workflows.explain.dataset_heatmaps import dataset_section
from striate.workflows.explain.depth.findings import depth_section
from striate.workflows.explain.depth.nonlinearity import nonlinearity_section
from striate.workflows.explain.filters_and_maps import layer_sections
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.invariance import invariance_section
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.optional_parts import OptionalParts, failure_reason
from striate.workflows.explain.options import ExplainOptions, OnProgress, Unit
from striate.workflows.explain.unit import strongest_unit, unit_section

# Extra sections that compare the predicted class with one true class.
ONE_LABEL_SECTIONS = {"dataset", "invariance", "depth"}
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
    first = images[0]
    on_progress = options.on_progress
    explained = _explain_each(loaded, images, options)
    image_data = [each.facts for each in explained]
    data: dict[str, Any] = {"network": loaded.name, "images": image_data}
    sections = [each.section for each in explained]
    parts = OptionalParts(data)
    on_progress("how the score is computed")
    arithmetic, error = _arithmetic(loaded, first)
    class_index = image_data[0]["target"]
    section, data["arithmetic"] = parts.section(
        "How the score is computed",
        lambda: _arithmetic_section(loaded, first, arithmetic, class_index, error),
    )
    sections.append(section)
    calls = layers_with_maps(loaded.model, first.x)
    unit = options.unit or ("output", (class_index,))
    if options.unit is None and calls:
        unit = strongest_unit(loaded, first, image_data[0]["layer"], calls)
    on_progress("image patches of the channels")
    channel_patches = parts.value(
        "What channels detect",
        lambda: find_channel_patches(loaded, _channel_calls(loaded, calls, unit)),
        None,
    )
    on_progress("one unit, filters and feature maps")

    def one_unit() -> tuple[f.Section, Any]:
        patches = _patches(loaded, channel_patches, unit)
        return unit_section(loaded, first, arithmetic, unit, patches, calls)

    section, data["unit"] = parts.section("One unit", one_unit)
    sections.append(section)
    layer_parts, layer_data = layer_sections(
        loaded, first, calls, channel_patches, parts
    )
    sections += layer_parts
    data |= layer_data
    chosen_sections, chosen_data = _channel_sections(loaded, images, options, parts)
    sections += chosen_sections
    data |= chosen_data
    for name in options.sections:
        section, data[name] = _extra_section(loaded, name, options, parts)
        sections.append(section)
    page = f.Page(
        f"Explanation of {loaded.name}",
        subtitle="\n\n".join((SUBTITLE, *loaded.remarks)),
        sections=tuple(sections),
        footer="The model was not modified.",
    )
    return ExplainFindings(
        page=page,
        data=data,
        maps=_all_maps(explained),
        channel_patches=channel_patches,
    )


def _explain_each(
    loaded: LoadedModel, images: Sequence[ExplainedImage], options: ExplainOptions
) -> list[ImageExplanation]:
    """Return the predictions and the heatmaps of all images."""
    explained = []
    for number, image in enumerate(images, 1):
        options.on_progress(f"heatmaps of image {number} of {len(images)}")
        explained.append(explain_image(loaded, image, options))
    return explained


def _all_maps(explained: Sequence[ImageExplanation]) -> dict[str, Tensor]:
    """Return all heatmaps by image number and method."""
    return {
        f"{i} {key}": heat[None]
        for i, each in enumerate(explained, 1)
        for key, heat in each.maps.items()
    }


def _check(loaded: LoadedModel, first: ExplainedImage, options: ExplainOptions) -> None:
    """Check the options of `explain` before the long computation starts."""
    if options.sections and loaded.run is None:
        what = f"{', '.join(options.sections)}: these sections need a dataset"
        fix = "explain a run, which has a dataset"
        raise SettingError(what, where=loaded.name, fix=fix)
    if loaded.labels is not None:
        for name in ONE_LABEL_SECTIONS.intersection(options.sections):
            loaded.labels.require_one_label(f"--sections {name}", f"leave out {name}")
        if options.ablate:
            loaded.labels.require_one_label("--ablate", "leave out --ablate")
    shapes = {}
    if options.unit or options.visualize or options.ablate:
        shapes = layer_shapes(loaded.model, first.x)
    for flag, channels in (
        ("visualize", options.visualize),
        ("ablate", options.ablate),
    ):
        if channels is not None:
            check_channels(channels, f"--{flag}")
            check_layer(channels[0], shapes, loaded.model)
    if options.unit is not None:
        layer, unit = options.unit
        check_unit(layer, unit, shapes, loaded.model)


def _channel_calls(loaded: LoadedModel, calls: Sequence[str], unit: Unit) -> list[str]:
    """Return the layers whose channels are described, with the layer of the unit."""
    shown = {*channel_layers(loaded.model, calls), unit[0]}
    return [call for call in calls if call in shown]


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
    except Exception as error:
        reason = failure_reason(error)
        return None, f"Unit arithmetic is not available: {reason}."


ExtraSection = Callable[[Run, OnProgress], tuple[f.Section, dict[str, Any]]]
EXTRA_SECTIONS: dict[str, ExtraSection] = {
    "dataset": lambda run, on_progress: dataset_section(run),
    "invariance": lambda run, on_progress: invariance_section(run),
    "depth": depth_section,
    "nonlinearity": lambda run, on_progress: nonlinearity_section(run),
}


def _channel_sections(
    loaded: LoadedModel,
    images: Sequence[ExplainedImage],
    options: ExplainOptions,
    parts: OptionalParts,
) -> tuple[list[f.Section], dict[str, Any]]:
    """Return the sections of `--visualize` and `--ablate`."""
    sections: list[f.Section] = []
    data: dict[str, Any] = {}
    visualize, ablate = options.visualize, options.ablate
    if visualize is not None:
        section, data["visualize"] = parts.section(
            "Feature visualization",
            lambda: visualization_section(loaded, visualize, options),
        )
        sections.append(section)
    if ablate is not None:
        options.on_progress("ablation of channels")
        section, data["ablate"] = parts.section(
            "Ablation of channels", lambda: ablation_section(loaded, images, ablate)
        )
        sections.append(section)
    return sections, data


def _extra_section(
    loaded: LoadedModel, name: str, options: ExplainOptions, parts: OptionalParts
) -> tuple[f.Section, Any]:
    """Return an extra section that is requested with `--sections`."""
    run = loaded.run
    assert run is not None  # noqa: S101 - `_check` refuses networks without a run
    build = EXTRA_SECTIONS[name]
    return parts.section(f"Section {name}", lambda: build(run, options.on_progress))


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
