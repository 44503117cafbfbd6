"""Text descriptions of all preprocessing steps, from image file to network input.

A `Preprocess` defines all steps. Its fields are the settings. The other rules are the
same for every run and have a version number (`data.cache.decoded_images.RULES`).
"""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.preprocess_config import Preprocess
from striate.data.decode.decode import FORMATS, MAX_PIXELS, MAX_SIDE
from striate.data.decode.jpeg_decoder import LARGE_JPEG, REDUCED

_RESIZES = {
    "stretch": "the whole image, stretched to the input's shape",
    "crop": "the aspect ratio is kept; a center crop is used",
    "pad": "the aspect ratio is kept; the missing area is filled with background",
}


@dataclass(frozen=True, kw_only=True)
class PreprocessRule:
    """Preprocessing step, its description, and its setting ('' if it is fixed)."""

    step: str
    action: str
    setting: str = ""


def preprocess_rules(preprocess: Preprocess) -> tuple[PreprocessRule, ...]:
    """Return the descriptions of all preprocessing steps, in order.

    Example:
        >>> p = Preprocess(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))
        >>> for rule in preprocess_rules(p)[-2:]:
        ...     print(rule.step, "·", rule.action, "·", rule.setting)
        size · 8×8: the whole image, stretched to the input's shape · --resize
        numbers · (v/255 − 0.5)/0.5 · --normalize
    """
    return (*_file_rules(preprocess), *_input_rules(preprocess))


def _file_rules(p: Preprocess) -> tuple[PreprocessRule, ...]:
    limit = (
        f"refused above {MAX_PIXELS // 10**6} megapixels or {MAX_SIDE:,} px per side"
    )
    jpeg = "every pixel is decoded"
    if p.jpeg == "reduced":
        fractions = " or ".join(
            f"1/{factor} size if this is at least {margin} times the input size"
            for factor, margin in reversed(REDUCED)
        )
        jpeg = f"from {LARGE_JPEG / 1e6:.1f} megapixels, decoded at {fractions}"
    return (
        PreprocessRule(
            step="format", action=f"recognized by the content: {', '.join(FORMATS)}"
        ),
        PreprocessRule(step="limits", action=limit),
        PreprocessRule(step="damage", action="a truncated or damaged file is refused"),
        PreprocessRule(
            step="frames",
            action="the first image of an animation or a multi-page file is used",
        ),
        PreprocessRule(step="JPEG", action=jpeg, setting="--jpeg"),
        PreprocessRule(
            step="EXIF", action="the image is rotated by its EXIF orientation"
        ),
        PreprocessRule(
            step="16 bits",
            action=f"gray v becomes v·255/{p.white_level:,}; larger values are "
            "refused; colors keep the high byte",
            setting="--white-level",
        ),
        PreprocessRule(
            step="transparency",
            action=f"transparent pixels are blended with gray level {p.background}",
            setting="--background",
        ),
    )


def _input_rules(p: Preprocess) -> tuple[PreprocessRule, ...]:
    color = {
        1: "gray: 0.299 R + 0.587 G + 0.114 B",
        3: "RGB; gray is repeated; CMYK is converted, profiles are not applied",
    }
    size = f"{p.height}×{p.width}: {_RESIZES[p.resize]}"
    return (
        PreprocessRule(
            step="color",
            action=color.get(p.channels, f"{p.channels} channels, unchanged"),
            setting="--in-chans",
        ),
        PreprocessRule(step="filter", action="bilinear, antialiased, on 8-bit values"),
        PreprocessRule(step="size", action=size, setting="--resize"),
        PreprocessRule(step="numbers", action=_numbers(p), setting="--normalize"),
    )


def _numbers(p: Preprocess) -> str:
    pairs = dict.fromkeys(zip(p.mean, p.std, strict=True))
    formulas = [f"(v/255 − {mean:.3g})/{std:.3g}" for mean, std in pairs]
    return "; ".join(formulas) or "mean and standard deviation are not measured yet"
