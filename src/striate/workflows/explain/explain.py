"""`explain`: what a network saw in images, why it answered so, number by number."""

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
from striate.interpret.attribution.attribute import Evidence, evidence
from striate.interpret.attribution.target import Class
from striate.interpret.layer_choice import AUTO
from striate.report.html import render
from striate.report.png import save_curve
from striate.run.layout import EXPLAINED, PLOTS, REPORT, new_folder
from striate.run.run import Run
from striate.workflows.explain.findings import story
from striate.workflows.explain.images import Wish, own_images, read
from striate.workflows.explain.subject import Subject
from striate.workflows.explain.tensor_file import TensorFile

MAPS, CHANNELS = "maps.safetensors", "channels.csv"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A finished explanation.

    Args:
        folder: Where it lies.
        page: The report.
        data: The same for programs.
    """

    folder: Path
    page: Page
    data: dict[str, Any]


def explain(
    network: nn.Module | Run,
    x: Tensor | str | Path,
    *,
    method: str = AUTO,
    target: Class | None = None,
    against: Class | None = None,
    layer: str = AUTO,
    labels: ClassNames | Sequence[str] | None = None,
    trust: bool = True,
) -> Evidence:
    """Return where in an image the evidence for a class lies.

    The model is left as it was: mode, hooks, gradients, batch norm, random state.

    Args:
        network: Any classifier, or a run.
        x: One image as the network takes it, (1, C, H, W) or (C, H, W); or, for a
            run, a file.
        method: `cam`, `gradcam`, `gradcam++`, `layercam`, `scorecam`, `occlusion`,
            `integrated`; `auto` is CAM where the network ends in global average
            pooling, else Grad-CAM.
        target: A class by name or number; the network's own answer where None.
        against: A second class: "why this rather than that?".
        layer: A dotted name; `auto` is the last whose maps have 4×4 cells.
        labels: Class names in output order; a run has its own.
        trust: Compute the trust marks: some 100 forward passes.

    Returns:
        The map at the image's size in `.heat`, its layer, its trust marks.

    Raises:
        UnknownNameError: No such method, layer or class; lists the right ones.
        GeometryError: The layer has no maps, or the image does not fit.

    Example:
        >>> import torch
        >>> tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
        >>> model = nn.Sequential(nn.Conv2d(3, 2, 3), *tail)
        >>> names = ["cat", "dog"]
        >>> found = explain(model, torch.rand(3, 8, 8), target="dog", labels=names)
        >>> tuple(found.heat.shape), found.layer.call
        ((8, 8), '0')
    """
    model = network.model if isinstance(network, Run) else network
    if isinstance(network, Run):
        labels = labels or network.labels
    if not isinstance(x, Tensor):
        if not isinstance(network, Run):
            what = "a file needs to be brought to the network's size and scale"
            raise SettingError(what, where=x, fix="give a tensor, or a run")
        subject = Subject(name="", model=model, preprocess=network.preprocess)
        x = read(subject, [x])[0].x
    tensor = next(model.parameters(), x)
    return evidence(
        model,
        (x[None] if x.ndim == 3 else x).to(tensor.device),
        method=method,
        target=target,
        against=against,
        layer=layer,
        labels=labels,
        trust=trust,
    )


def explain_images(
    subject: Subject,
    images: Sequence[str | Path] = (),
    wish: Wish | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Explanation:
    """Explain images, or a run's surest and worst answers, into a folder.

    The folder holds `report.html`; `explain.json`; `images/`, and `maps.safetensors`
    with the numbers behind those of evidence; the charts in `plots/`; of a run
    `channels.csv`, every channel's best places. Nothing is written before everything
    is computed.

    Raises:
        SettingError: No images, and no run to take them from.
        RunError: `out` exists and `overwrite` is off.
    """
    given = read(subject, images) if images else own_images(subject)
    told = story(subject, given, wish or Wish())
    page = told.page
    with new_folder("explain", subject.name, out, overwrite) as folder:
        write_json(folder / EXPLAINED, {"made_by": "striate explain", **told.data})
        with TensorFile(folder / MAPS, list(told.maps)) as file:
            file.add(told.maps)
            file.finish()
        if told.looked_for is not None:
            write_csv(folder / CHANNELS, *told.looked_for.table())
        for name, image in _images(page):
            write_bytes(folder / "images" / name, image.png)
        for name, curve in _curves(page):
            save_curve(curve, folder / PLOTS / name)
        write_text(folder / REPORT, render(page))
    return Explanation(folder=folder, page=page, data=told.data)


def _curves(page: Page) -> list[tuple[str, Curve]]:
    """Return every chart of a page with a file name of its own."""
    found = [
        block
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Curve)
    ]
    return [(f"{i:02d}-{_slug(one.title)}.png", one) for i, one in enumerate(found, 1)]


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60]


def _images(page: Page) -> list[tuple[str, Image]]:
    """Return every image of a page with a file name of its own."""
    found: list[tuple[str, Image]] = []
    for number, section in enumerate(page.sections, 1):
        for block in section.blocks:
            if isinstance(block, Images):
                for one in block.images:
                    slug = _slug(f"{section.title} {block.title} {one.caption}")
                    found.append((f"{number:02d}-{len(found):03d}-{slug}.png", one))
    return found
