"""Report of `data preview`, as an HTML page and as a summary for the terminal."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from torch import Tensor

from striate.core import findings as f
from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess
from striate.data.decode.preprocess import image_to_input, normalize
from striate.data.decode.preprocess_rules import preprocess_rules
from striate.data.decode.resize_effects import ResizeEffect, resize_effect
from striate.interpret.render import diverging_colors, enlarge, to_image
from striate.report.format import percent
from striate.workflows.data_preview.preview import Preview, PreviewImage, denormalize

SIDE = 176  # display size of small images in pixels, enlarged by whole factors
FRAME = 160  # gray level around every image
VALUE_RANGE = 2.5  # displayed range in standard deviations, in both directions


def preview_page(result: Preview) -> f.Page:
    """Return the HTML report of a preview."""
    p = result.preprocess
    return f.Page(
        f"{result.data.name} · network input",
        subtitle=f"{p.spec}, resize mode {p.resize}, as in training and prediction",
        sections=(
            f.Section("Summary", tuple(preview_summary(result))),
            f.Section(
                "Before and after",
                tuple(_before_and_after(result, i) for i in result.images),
                lead="The original image, then the input in every resize mode. Images "
                "with extreme sizes and aspect ratios come first, because the modes "
                "differ most for them.",
            ),
            f.Section(
                "Normalized input",
                (_input_stats_table(result), _input_images(result)),
                lead="The values that the first layer receives, as an image, and the "
                "image after undoing the normalization.",
            ),
            f.Section(
                "Preprocessing steps",
                (rule_table(result),),
                lead="All steps from the file to the input, in order, with the setting "
                "that changes each. A run saves them in preprocess.json.",
            ),
        ),
    )


def preview_summary(result: Preview) -> list[f.Block]:
    """Return the terminal report: image sizes, and effects of each resize mode."""
    sizes = result.sizes
    count = sum(sizes.values())
    smallest, largest = min(sizes, key=math.prod), max(sizes, key=math.prod)
    same = smallest == largest
    span = _size(smallest) if same else f"{_size(smallest)} to {_size(largest)}"
    variety = f"{len(sizes):,} different" if len(sizes) > 1 else "all the same"
    p = result.preprocess
    return [
        f.Figures(
            (
                f.Figure("images", f"{count:,}"),
                f.Figure("image sizes", span, detail=variety),
                f.Figure("input", str(p.spec), detail=f"--resize {p.resize}"),
            )
        ),
        _effects_table(result),
        *_advice(result),
    ]


def _size(sides: tuple[int, int]) -> str:
    return f"{sides[0]}×{sides[1]}"


def _effects_table(result: Preview) -> f.Table:
    changed = "mean change of aspect; 1 is none"
    smaller = "share of images smaller than the input"
    columns = (
        f.Column("mode", "code"),
        f.Column("visible", "ratio", hint="mean visible share of an image"),
        f.Column("min", "ratio", hint="smallest visible share of an image"),
        f.Column("distortion", "number", hint=changed),
        f.Column("max", "number", hint="largest change of aspect"),
        f.Column("border", "ratio", hint="mean share of the input"),
        f.Column("enlarged", "ratio", hint=smaller),
    )
    rows: list[tuple[f.Cell, ...]] = []
    for mode, effect in result.effects.items():
        label = f"{mode} ←" if mode == result.preprocess.resize else mode
        distortion = (round(value, 2) for value in effect.distortion)
        numbers = *effect.visible, *distortion, effect.border[0], effect.enlarged
        rows.append((label, *numbers))
    title = "Effect of each resize mode"
    return f.Table(title=title, columns=columns, rows=tuple(rows))


def _advice(result: Preview) -> list[f.Block]:
    """Return warnings about the selected resize mode."""
    effect = result.effects[result.preprocess.resize]
    advice: list[str] = []
    if effect.distortion[1] > 1.5:
        advice.append(
            f"Stretching distorts some images by {effect.distortion[1]:.1f}×. If shape "
            "matters, compare crop and pad."
        )
    if effect.visible[1] < 0.6:
        advice.append(
            f"Only {percent(effect.visible[1], 0)} of some images is visible. If "
            "objects may be near the edge, use stretch or pad."
        )
    if effect.border[0] > 0.25:
        advice.append(
            f"{percent(effect.border[0], 0)} of the input is border. An --image-size "
            "HEIGHTxWIDTH closer to the aspect ratio of the images wastes less."
        )
    if effect.enlarged > 0.5:
        advice.append(
            f"{percent(effect.enlarged, 0)} of the images are smaller than the input. "
            "A smaller --image-size is faster and loses no detail."
        )
    if not advice:
        return [f.Prose("The selected resize mode loses little.", "good")]
    return [f.Prose(text, "warning") for text in advice]


def _before_and_after(result: Preview, image: PreviewImage) -> f.Images:
    p = result.preprocess
    whole = _size(image.sides)
    images = [_display_image(image.original, f"original, {whole}", "")]
    for mode, pixels in image.inputs.items():
        label = " (selected)" if mode == p.resize else ""
        height, width = image.sides
        effect = resize_effect(replace(p, resize=mode), height, width)
        text = _effect_text(effect)
        images.append(_display_image(pixels.numpy(), f"{mode}{label}", text))
    return f.Images(title=f"{image.path} · {image.label}", images=tuple(images))


def _effect_text(effect: ResizeEffect) -> str:
    texts = []
    if effect.visible < 0.995:
        texts.append(f"{percent(effect.visible, 0)} visible")
    if effect.distortion > 1.005:
        texts.append(f"distorted {effect.distortion:.2f}×")
    if effect.border > 0.005:
        texts.append(f"{percent(effect.border, 0)} border")
    if effect.scale > 1:
        texts.append(f"enlarged {effect.scale:.1f}×")
    return ", ".join(texts) or "no loss"


def _display_image(pixels: np.ndarray, caption: str, detail: str = "") -> f.Image:
    """Resize an image for display; small images are enlarged by an integer factor."""
    height, width, channels = pixels.shape
    longest = max(height, width)
    if longest > SIDE:
        rows, columns = (max(1, round(n * SIDE / longest)) for n in (height, width))
        small = Preprocess(channels=channels, height=rows, width=columns)
        pixels = image_to_input(pixels, small).numpy()
    else:
        pixels = enlarge(pixels, height * (SIDE // longest))
    # A frame, because a white background would not end visibly on a white page.
    framed = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), constant_values=FRAME)
    return to_image(framed, caption, detail)


def _input_stats_table(result: Preview) -> f.Table:
    columns = (
        f.Column("channel"),
        *(f.Column(t, "number") for t in ("mean", "std", "min", "max")),
    )
    rows = tuple((n.channel, n.mean, n.std, n.min, n.max) for n in result.input_stats)
    gives = "gives" if result.recovers_pixels else "does not give"
    mean = ", ".join(f"{value:.4g}" for value in result.preprocess.mean)
    std = ", ".join(f"{value:.4g}" for value in result.preprocess.std)
    note = (
        f"Over the {count_text(len(result.images), 'image')} shown. "
        f"Normalization: mean {mean}; std "
        f"{std}. Denormalizing {gives} the exact 8-bit pixels."
    )
    return f.Table(title="Input statistics", columns=columns, rows=rows, note=note)


def _input_images(result: Preview) -> f.Images:
    """Return a gallery of normalized inputs beside their denormalized images."""
    p = result.preprocess
    images = []
    for image in result.images[:3]:
        x = normalize(image.inputs[p.resize][None], p)
        images += [
            _display_image(_input_to_image(x[0]), "normalized", image.path),
            _display_image(denormalize(x, p)[0].numpy(), "denormalized", image.path),
        ]
    note = f"Displayed range: −{VALUE_RANGE} to {VALUE_RANGE} standard deviations"
    note += "; blue: below the mean, red: above." if p.channels == 1 else "."
    return f.Images(images=tuple(images), note=note)


def _input_to_image(x: Tensor) -> np.ndarray:
    values = x.permute(1, 2, 0).numpy()
    if values.shape[-1] == 1:
        return diverging_colors(values[..., 0], VALUE_RANGE)
    return np.clip((values / VALUE_RANGE + 1) * 127.5, 0, 255).round().astype(np.uint8)


def rule_table(result: Preview) -> f.Table:
    """Return a table of all preprocessing steps with their settings."""
    columns = (
        f.Column("step"),
        f.Column("what happens"),
        f.Column("setting", "code", hint="empty: fixed"),
    )
    return f.Table(columns=columns, rows=preprocess_rules(result.preprocess))
