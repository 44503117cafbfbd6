"""A preview in findings: for a page, and shorter for a terminal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from striate.core.findings import (
    Block,
    Cell,
    Column,
    Figure,
    Figures,
    Image,
    Images,
    Page,
    Prose,
    Section,
    Table,
)
from striate.core.spec import Preprocess
from striate.data.decode.preprocess import image_to_input, normalize
from striate.data.decode.resize_effects import ResizeEffect, resize_effect
from striate.data.decode.rules import preprocess_rules
from striate.interpret.render import enlarge, signed, to_image
from striate.report.format import percent
from striate.workflows.data_preview.preview import Preview, Seen, unnormalized

SIDE = 176  # pixels that a small image is enlarged to, by whole factors
FRAME = 160  # gray level around every image
SPREAD = 2.5  # deviations either way that the view of the numbers shows


def page(found: Preview) -> Page:
    """Return the preview as a page."""
    p = found.preprocess
    return Page(
        title=f"What the network sees of {found.data.name}",
        subtitle=f"{p.spec} by {p.resize}, as training, evaluate and predict do it",
        sections=(
            Section(title="In short", blocks=tuple(summary(found))),
            Section(
                title="Before and after",
                lead="The file's own pixels, then the input in every mode. Images "
                "with the longest sides and the extreme sizes come first, because "
                "there the modes differ most.",
                blocks=tuple(_gallery(found, one) for one in found.seen),
            ),
            Section(
                title="What arrives",
                lead="The numbers the first layer gets, drawn as an image, and what "
                "comes back when normalizing is undone.",
                blocks=(_numbers(found), _views(found)),
            ),
            Section(
                title="Rules",
                lead="All that happens between file and input, in this order, with "
                "the setting that changes it. preprocess.json in a run folder holds "
                "the same.",
                blocks=(rule_table(found),),
            ),
        ),
    )


def summary(found: Preview) -> list[Block]:
    """Return what a terminal shows: sizes, what each mode costs, what arrives."""
    sizes = found.sizes
    count = sum(sizes.values())
    least, most = min(sizes, key=_area), max(sizes, key=_area)
    span = _size(least) if least == most else f"{_size(least)} to {_size(most)}"
    several = f"{len(sizes):,} different" if len(sizes) > 1 else "all the same"
    p = found.preprocess
    return [
        Figures(
            figures=(
                Figure(label="images", value=f"{count:,}"),
                Figure(label="their sizes", value=span, detail=several),
                Figure(label="input", value=str(p.spec), detail=f"--resize {p.resize}"),
            )
        ),
        _costs(found),
        *_advice(found),
    ]


def _area(sides: tuple[int, int]) -> int:
    return sides[0] * sides[1]


def _size(sides: tuple[int, int]) -> str:
    return f"{sides[0]}×{sides[1]}"


def _costs(found: Preview) -> Table:
    columns = (
        Column(title="mode", kind="code"),
        Column(title="kept", kind="ratio", hint="mean share of an image that is seen"),
        Column(title="least", kind="ratio", hint="of the image that loses most"),
        Column(title="bent", kind="number", hint="mean distortion; 1 is none"),
        Column(title="most", kind="number", hint="of the image bent most"),
        Column(title="border", kind="ratio", hint="mean share of the input"),
        Column(title="enlarged", kind="ratio", hint="images below the input's size"),
    )
    rows: list[tuple[Cell, ...]] = []
    for mode, cost in found.costs.items():
        chosen = f"{mode} ←" if mode == found.preprocess.resize else mode
        numbers = *cost.kept, *(round(b, 2) for b in cost.bent), cost.border[0]
        rows.append((chosen, *numbers, cost.enlarged))
    title = "What each mode costs"
    return Table(title=title, columns=columns, rows=tuple(rows))


def _advice(found: Preview) -> list[Block]:
    """Say what a look at the table should not miss."""
    cost = found.costs[found.preprocess.resize]
    said: list[str] = []
    if cost.bent[1] > 1.5:
        said.append(
            f"Stretching bends some images by {cost.bent[1]:.1f}×. If shape matters, "
            "compare crop and pad below."
        )
    if cost.kept[1] < 0.6:
        said.append(
            f"Of some images only {percent(cost.kept[1], 0)} is seen. If what "
            "matters may lie at an edge, use stretch or pad."
        )
    if cost.border[0] > 0.25:
        said.append(
            f"{percent(cost.border[0], 0)} of what the network computes is border. An "
            "--image-size HEIGHTxWIDTH near the images' own aspect wastes less."
        )
    if cost.enlarged > 0.5:
        said.append(
            f"{percent(cost.enlarged, 0)} of the images are smaller than the input: "
            "a larger --image-size costs time and shows nothing more."
        )
    if not said:
        return [Prose(text="The chosen mode costs these images little.", tone="good")]
    return [Prose(text=text, tone="warning") for text in said]


def _gallery(found: Preview, one: Seen) -> Images:
    p = found.preprocess
    whole = _size(one.sides)
    shown = [_drawn(one.original, f"file, {whole}", "")]
    for mode, pixels in one.inputs.items():
        chosen = " (chosen)" if mode == p.resize else ""
        cost = resize_effect(replace(p, resize=mode), *one.sides)
        shown.append(_drawn(pixels.numpy(), f"{mode}{chosen}", _words(cost)))
    return Images(title=f"{one.path} · {one.label}", images=tuple(shown))


def _words(cost: ResizeEffect) -> str:
    words = []
    if cost.visible < 0.995:
        words.append(f"{percent(cost.visible, 0)} kept")
    if cost.distortion > 1.005:
        words.append(f"bent {cost.distortion:.2f}×")
    if cost.border > 0.005:
        words.append(f"{percent(cost.border, 0)} border")
    if cost.scale > 1:
        words.append(f"enlarged {cost.scale:.1f}×")
    return ", ".join(words) or "nothing lost"


def _drawn(pixels: np.ndarray, caption: str, detail: str = "") -> Image:
    """Draw an image at about one size: shrunk smoothly or enlarged by whole pixels."""
    height, width, channels = pixels.shape
    most = max(height, width)
    if most > SIDE:
        rows, columns = (max(1, round(side * SIDE / most)) for side in (height, width))
        small = Preprocess(channels=channels, height=rows, width=columns)
        pixels = image_to_input(pixels, small).numpy()
    else:
        pixels = enlarge(pixels, height * (SIDE // most))
    # A frame: background on a white page would not be seen to end.
    framed = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), constant_values=FRAME)
    return to_image(framed, caption, detail)


def _numbers(found: Preview) -> Table:
    columns = (
        Column(title="channel"),
        *(
            Column(title=t, kind="number")
            for t in ("mean", "deviation", "least", "most")
        ),
    )
    rows = tuple((n.channel, n.mean, n.std, n.least, n.most) for n in found.numbers)
    back = (
        "The 8-bit pixels come back exactly from them."
        if found.recovered
        else "The 8-bit pixels do not come back from them exactly."
    )
    p = found.preprocess
    used = "; ".join(
        f"{name} {', '.join(f'{v:.4g}' for v in values)}"
        for name, values in (("mean", p.mean), ("deviation", p.std))
    )
    note = f"Over the {len(found.seen)} images shown. Normalized by {used}. {back}"
    return Table(title="The input's numbers", columns=columns, rows=rows, note=note)


def _views(found: Preview) -> Images:
    """Draw what was normalized, and what comes back of it, side by side."""
    p = found.preprocess
    shown = []
    for one in found.seen[:3]:
        x = normalize(one.inputs[p.resize][None], p)
        shown += [
            _drawn(_view(x[0]), "the numbers", one.path),
            _drawn(unnormalized(x, p)[0].numpy(), "un-normalized", one.path),
        ]
    note = f"The numbers are drawn from −{SPREAD} to {SPREAD} deviations"
    note += ": blue is below the mean, red above." if p.channels == 1 else "."
    return Images(images=tuple(shown), note=note)


def _view(x: Tensor) -> np.ndarray:
    values = x.permute(1, 2, 0).numpy()
    if values.shape[-1] == 1:
        return signed(values[..., 0], SPREAD)
    return np.clip((values / SPREAD + 1) * 127.5, 0, 255).round().astype(np.uint8)


def rule_table(found: Preview) -> Table:
    """Return every rule between file and input, and what changes it."""
    columns = (
        Column(title="step"),
        Column(title="what happens"),
        Column(title="setting", kind="code", hint="empty: the same for every run"),
    )
    rows = tuple(
        (r.step, r.action, r.setting) for r in preprocess_rules(found.preprocess)
    )
    return Table(columns=columns, rows=rows)
