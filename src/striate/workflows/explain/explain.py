"""`st.explain` and `striate explain`: heatmaps of images, and the report folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from striate.core.class_names import ClassNames
from striate.core.errors import SettingError
from striate.core.files import write_bytes, write_csv, write_json, write_text
from striate.core.findings import Curve, Image, Images, Page
from striate.core.torch_modes import own_torch_modes
from striate.data.decode.preprocess import normalize
from striate.interpret.attribution.attribute import Attribution, attribute
from striate.interpret.attribution.target import ClassRef, ToProbs
from striate.interpret.layer_choice import AUTO
from striate.report.html import render_page
from striate.report.html_card import render_card
from striate.report.png import save_curve
from striate.run.layout import EXPLANATION, PLOTS, REPORT, check_out, new_folder
from striate.run.run import Run
from striate.workflows.explain.findings import explain_findings
from striate.workflows.explain.images import as_input, read_images, run_images
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import ExplainOptions
from striate.workflows.explain.tensor_file import TensorFile

MAPS, CHANNELS = "maps.safetensors", "channels.csv"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Result of `striate explain`: output folder, report page and data.

    Args:
        folder: Output folder.
        page: The report page.
        data: Content of the report as a JSON-serializable dict.
    """

    folder: Path
    page: Page
    data: dict[str, Any]

    def _repr_html_(self) -> str:
        sections = self.page.sections[: len(self.data["images"])]
        return render_card(self.page.title, sections, {"report": self.folder / REPORT})


@own_torch_modes()
def explain(
    network: nn.Module | Run,
    x: Tensor | str | Path,
    *,
    method: str = AUTO,
    target: ClassRef | None = None,
    against: ClassRef | None = None,
    layer: str = AUTO,
    labels: ClassNames | Sequence[str] | None = None,
    sanity_checks: bool = True,
) -> Attribution:
    """Compute which pixels of an image support a class.

    The model is not modified: mode, hooks, gradients, batch norm, random state.

    Args:
        network: Any classifier, or a run.
        x: One preprocessed image, (1, C, H, W) or (C, H, W); for a run also an
            image file, or the path of an image in memory that the run was trained on.
        method: `cam`, `gradcam`, `gradcam++`, `layercam`, `scorecam`, `occlusion`,
            `integrated_gradients`; `auto` is CAM if the network ends in global average
            pooling, else Grad-CAM.
        target: Class name or index; the predicted class if None.
        against: A second class, to explain the difference of the two scores.
        layer: Dotted name; `auto` is the last layer with maps of 4×4 cells or more.
        labels: Class names in output order; not needed for a run.
        sanity_checks: Whether to run the sanity checks: about 100 forward passes.

    Returns:
        The map in `.heatmap`, its `.layer`, and its `.sanity_checks`.

    Raises:
        UnknownNameError: Unknown method, layer or class; the message lists the names.
        GeometryError: The layer has no feature maps, or the image does not fit.

    Example:
        >>> import torch
        >>> tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
        >>> model = nn.Sequential(nn.Conv2d(3, 2, 3), *tail)
        >>> names = ["cat", "dog"]
        >>> items = explain(model, torch.rand(3, 8, 8), target="dog", labels=names)
        >>> tuple(items.heatmap.shape), items.layer.call
        ((8, 8), '0')
    """
    model = network.model if isinstance(network, Run) else network
    to_probs: ToProbs | None = None
    if isinstance(network, Run):
        labels = labels or network.labels
        calibration = network.label_calibration
        to_probs = calibration.probabilities if calibration else None
    if not isinstance(x, Tensor):
        if not isinstance(network, Run):
            what = "an image file must be preprocessed for the network"
            fix = "pass a preprocessed tensor, or a run (with its preprocessing)"
            raise SettingError(what, where=x, fix=fix)
        x = _run_input(network, x)
    model = getattr(model, "_orig_mod", model)  # a module of torch.compile
    return attribute(
        model,
        as_input(model, x[None] if x.ndim == 3 else x),
        method=method,
        target=target,
        against=against,
        layer=layer,
        labels=labels,
        to_probs=to_probs,
        sanity_checks=sanity_checks,
    )


def _run_input(run: Run, path: str | Path) -> Tensor:
    """Return the preprocessed image of a path, from data in memory or from a file."""
    pixels = run.image_in_memory(str(path))
    if pixels is not None:
        return normalize(pixels[None], run.preprocess)
    loaded = LoadedModel(name="", model=run.model, preprocess=run.preprocess)
    return read_images(loaded, [path])[0].x


@own_torch_modes()
def explain_images(
    loaded: LoadedModel,
    images: Sequence[str | Path] = (),
    options: ExplainOptions | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Explanation:
    """Explain the predictions for images, and write the report folder.

    Without images, a run explains its most confident correct prediction and its
    highest-loss error.

    The folder has `report.html`, `explain.json`, `images/`, the charts in `plots/`,
    `maps.safetensors` with the heatmaps, and for a run `channels.csv` with the top
    patches of every channel. Files are written after everything is computed.

    Raises:
        SettingError: There are no images and no run.
        RunError: `out` exists and `overwrite` is off.
    """
    check_out(out, overwrite)
    explained = read_images(loaded, images) if images else run_images(loaded)
    findings = explain_findings(loaded, explained, options or ExplainOptions())
    page = findings.page
    with new_folder("explain", loaded.name, out, overwrite) as folder:
        data = {"made_by": "striate explain", **findings.data}
        write_json(folder / EXPLANATION, data)
        with TensorFile(folder / MAPS, list(findings.maps)) as file:
            file.add(findings.maps)
            file.finish()
        if findings.channel_patches is not None:
            header, rows = findings.channel_patches.table()
            write_csv(folder / CHANNELS, header, rows)
        for name, image in _images(page):
            write_bytes(folder / "images" / name, image.png)
        for name, curve in _curves(page):
            save_curve(curve, folder / PLOTS / name)
        write_text(folder / REPORT, render_page(page))
    return Explanation(folder=folder, page=page, data=findings.data)


def _curves(page: Page) -> list[tuple[str, Curve]]:
    """Return all charts of a report page, by file name."""
    blocks = [block for section in page.sections for block in section.blocks]
    curves = [block for block in blocks if isinstance(block, Curve)]
    return [(f"{i:02d}-{_slug(c.title)}.png", c) for i, c in enumerate(curves, 1)]


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60]


def _images(page: Page) -> list[tuple[str, Image]]:
    """Return all images of a report page, by file name."""
    items: list[tuple[str, Image]] = []
    for number, section in enumerate(page.sections, 1):
        for block in section.blocks:
            if isinstance(block, Images):
                for image in block.images:
                    slug = _slug(f"{section.title} {block.title} {image.caption}")
                    items.append((f"{number:02d}-{len(items):03d}-{slug}.png", image))
    return items
