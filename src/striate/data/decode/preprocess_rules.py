"""Text descriptions of all preprocessing steps, from image file to network input.

A `Preprocess` defines all steps. Its fields are the settings. The other rules are the
same for every run and have a version number (`data.cache.decoded_images.RULES`).
"""

from __future__ import annotations

from typing import NamedTuple

from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess
from striate.data.decode.decode import FORMATS, MAX_PIXELS, MAX_SIDE
from striate.data.decode.jpeg_decoder import LARGE_JPEG, REDUCED

_RESIZES = {
    "stretch": "the whole image, stretched to the input's shape",
    "crop": "the aspect ratio is kept; a center crop is used",
    "pad": "the aspect ratio is kept; the missing area is filled with background",
}
_COLORS = {
    1: "gray: 0.299 R + 0.587 G + 0.114 B",
    3: "RGB; gray is repeated; CMYK is converted, profiles are not applied",
}


class PreprocessRule(NamedTuple):
    """Preprocessing step, its description, and its setting ('' for a fixed step)."""

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
    p = preprocess
    pixels = f"{MAX_PIXELS // 10**6} megapixels"
    limit = f"refused above {pixels} or {MAX_SIDE:,} px per side"
    jpeg = "every pixel is decoded"
    if p.jpeg == "reduced":
        fractions = " or ".join(
            f"1/{factor} size if this is at least {margin} times the input size"
            for factor, margin in reversed(REDUCED)
        )
        jpeg = f"from {LARGE_JPEG / 1e6:.1f} megapixels, decoded at {fractions}"
    deep = (
        f"gray v becomes v·255/{p.white_level:,} or less, if the file declares a "
        "smaller range; larger values are refused; colors keep the high byte"
    )
    blended = f"transparent pixels are blended with gray level {p.background}"
    color = _COLORS.get(p.channels, f"{count_text(p.channels, 'channel')}, unchanged")
    pairs = dict.fromkeys(zip(p.mean, p.std, strict=True))
    formulas = [f"(v/255 − {mean:.3g})/{std:.3g}" for mean, std in pairs]
    numbers = "; ".join(formulas) or "mean and standard deviation are not measured yet"
    size = f"{p.height}×{p.width}: {_RESIZES[p.resize]}"
    frames = "the first image of an animation or a multi-page file is used"
    return (
        PreprocessRule("format", f"recognized by the content: {', '.join(FORMATS)}"),
        PreprocessRule("limits", limit),
        PreprocessRule("damage", "a truncated or damaged file is refused"),
        PreprocessRule("frames", frames),
        PreprocessRule("JPEG", jpeg, "--jpeg"),
        PreprocessRule("EXIF", "the image is rotated by its EXIF orientation"),
        PreprocessRule("16 bits", deep, "--white-level"),
        PreprocessRule("transparency", blended, "--background"),
        PreprocessRule("color", color, "--in-chans"),
        PreprocessRule("filter", "bilinear, antialiased, on 8-bit values"),
        PreprocessRule("size", size, "--resize"),
        PreprocessRule("numbers", numbers, "--normalize"),
    )
