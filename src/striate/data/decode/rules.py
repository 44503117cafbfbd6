"""Every rule between an image file and the network's input, said in words.

A `Preprocess` fixes all of it: what can be set stands in its fields, what cannot is the
same for every run and is numbered (`data.store.packs.RULES`).
"""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.spec import Preprocess
from striate.data.decode.decode import FORMATS, MAX_PIXELS, MAX_SIDE
from striate.data.decode.jpeg_decoder import LARGE_JPEG, REDUCED

_RESIZES = {
    "stretch": "all of the image; its aspect is bent to the input's",
    "crop": "the aspect is kept; what sticks out of the middle is cut off",
    "pad": "aspect and image are kept; the rest is background",
}


@dataclass(frozen=True, kw_only=True)
class PreprocessRule:
    """A step, what is done in it, and the setting that changes it (empty: fixed)."""

    step: str
    does: str
    setting: str = ""


def preprocess_rules(preprocess: Preprocess) -> tuple[PreprocessRule, ...]:
    """Return what happens to every image, in order.

    Example:
        >>> p = Preprocess(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))
        >>> for rule in preprocess_rules(p)[-2:]:
        ...     print(rule.step, "·", rule.does, "·", rule.setting)
        size · 8×8: all of the image; its aspect is bent to the input's · --resize
        numbers · (v/255 − 0.5)/0.5 · --normalize
    """
    return (*_file_rules(preprocess), *_input_rules(preprocess))


def _file_rules(p: Preprocess) -> tuple[PreprocessRule, ...]:
    limit = f"over {MAX_PIXELS // 10**6} megapixels or {MAX_SIDE:,} a side is refused"
    jpeg = "every pixel is decoded"
    if p.jpeg == "reduced":
        parts = " or ".join(
            f"1/{factor} where that leaves {margin} times the sides below"
            for factor, margin in reversed(REDUCED)
        )
        jpeg = f"from {LARGE_JPEG / 1e6:.1f} megapixels on decoded at {parts}"
    return (
        PreprocessRule(
            step="format", does=f"told from the content: {', '.join(FORMATS)}"
        ),
        PreprocessRule(step="limits", does=limit),
        PreprocessRule(
            step="damage", does="a file that is cut short or broken is refused"
        ),
        PreprocessRule(
            step="frames", does="of animations and many pages the first counts"
        ),
        PreprocessRule(step="JPEG", does=jpeg, setting="--jpeg"),
        PreprocessRule(step="EXIF", does="the image is turned the way up it is shown"),
        PreprocessRule(
            step="16 bits",
            does=f"gray v becomes v·255/{p.white_level:,}, a value above is refused; "
            "of colors the high byte counts",
            setting="--white-level",
        ),
        PreprocessRule(
            step="transparency",
            does=f"laid on gray level {p.background}",
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
            does=color.get(p.channels, f"{p.channels} channels as they are"),
            setting="--in-chans",
        ),
        PreprocessRule(step="filter", does="bilinear, antialiased, on 8-bit values"),
        PreprocessRule(step="size", does=size, setting="--resize"),
        PreprocessRule(step="numbers", does=_numbers(p), setting="--normalize"),
    )


def _numbers(p: Preprocess) -> str:
    pairs = dict.fromkeys(zip(p.mean, p.std, strict=True))
    formulas = [f"(v/255 − {mean:.3g})/{std:.3g}" for mean, std in pairs]
    return "; ".join(formulas) or "mean and deviation are not measured yet"
