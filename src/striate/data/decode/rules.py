"""Every rule between an image file and the network's input, said in words.

A `Preprocess` fixes all of it: what can be set stands in its fields, what cannot is the
same for every run and is numbered (`data.store.packs.RULES`).
"""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.preprocess import Preprocess
from striate.data.decode.decode import (
    FORMATS,
    LARGE_JPEG,
    MAX_PIXELS,
    MAX_SIDE,
    REDUCED,
)

_RESIZES = {
    "stretch": "all of the image; its aspect is bent to the input's",
    "crop": "the aspect is kept; what sticks out of the middle is cut off",
    "pad": "aspect and image are kept; the rest is background",
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A step, what is done in it, and the setting that changes it (empty: fixed)."""

    step: str
    does: str
    setting: str = ""


def rules(preprocess: Preprocess) -> tuple[Rule, ...]:
    """Return what happens to every image, in order.

    Example:
        >>> p = Preprocess(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))
        >>> for rule in rules(p)[-2:]:
        ...     print(rule.step, "·", rule.does, "·", rule.setting)
        size · 8×8: all of the image; its aspect is bent to the input's · --resize
        numbers · (v/255 − 0.5)/0.5 · --normalize
    """
    return (*_file_rules(preprocess), *_input_rules(preprocess))


def _file_rules(p: Preprocess) -> tuple[Rule, ...]:
    limit = f"over {MAX_PIXELS // 10**6} megapixels or {MAX_SIDE:,} a side is refused"
    jpeg = "every pixel is decoded"
    if p.jpeg == "reduced":
        parts = " or ".join(
            f"1/{factor} where that leaves {margin} times the sides below"
            for factor, margin in reversed(REDUCED)
        )
        jpeg = f"from {LARGE_JPEG / 1e6:.1f} megapixels on decoded at {parts}"
    return (
        Rule(step="format", does=f"told from the content: {', '.join(FORMATS)}"),
        Rule(step="limits", does=limit),
        Rule(step="damage", does="a file that is cut short or broken is refused"),
        Rule(step="frames", does="of animations and many pages the first counts"),
        Rule(step="JPEG", does=jpeg, setting="--jpeg"),
        Rule(step="EXIF", does="the image is turned the way up it is shown"),
        Rule(
            step="16 bits",
            does=f"gray v becomes v·255/{p.white_level:,}, a value above is refused; "
            "of colors the high byte counts",
            setting="--white-level",
        ),
        Rule(
            step="transparency",
            does=f"laid on gray level {p.background}",
            setting="--background",
        ),
    )


def _input_rules(p: Preprocess) -> tuple[Rule, ...]:
    color = {
        1: "gray: 0.299 R + 0.587 G + 0.114 B",
        3: "RGB; gray is repeated; CMYK is converted, profiles are not applied",
    }
    size = f"{p.height}×{p.width}: {_RESIZES[p.resize]}"
    return (
        Rule(
            step="color",
            does=color.get(p.channels, f"{p.channels} channels as they are"),
            setting="--in-chans",
        ),
        Rule(step="filter", does="bilinear, antialiased, on 8-bit values"),
        Rule(step="size", does=size, setting="--resize"),
        Rule(step="numbers", does=_numbers(p), setting="--normalize"),
    )


def _numbers(p: Preprocess) -> str:
    pairs = dict.fromkeys(zip(p.mean, p.std, strict=True))
    formulas = [f"(v/255 − {mean:.3g})/{std:.3g}" for mean, std in pairs]
    return "; ".join(formulas) or "mean and deviation are not measured yet"
