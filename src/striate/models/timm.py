"""Networks of the timm package by name: `timm:resnet18`, `timm:resnet18.a1_in1k`.

timm is an extra. A name means one of its own list and nothing else, where timm itself
would take addresses and folders too. Behind a dot may stand which of its weights the
network is for; without it timm's first ones are meant, whose pictures then count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from striate.core.errors import (
    GeometryError,
    SettingError,
    UnknownNameError,
    WeightsError,
)
from striate.core.preprocess import ImageSpec, Preprocess
from striate.core.registry import closest_names

PREFIX = "timm:"
CLASSES = 1000  # of a network whose weights came without a head
# How timm brings pictures to a square, in our words.
_MODES = {"center": "crop", "squash": "squash", "border": "pad"}


@dataclass(frozen=True, kw_only=True)
class Described:
    """What timm says of a network, and of the weights that it is for.

    Args:
        name: With the weights' tag, where it has one.
        image: What its pictures are.
        classes: Its outputs.
        preprocess: How its pictures are made, as far as we can make them so.
        remark: What timm does otherwise, in words.
        licence: Of the weights.
        place: Where they are published.
        fixed: It is built for one size of pictures.
    """

    name: str
    image: ImageSpec
    classes: int
    preprocess: Preprocess
    remark: str
    licence: str
    place: str
    fixed: bool

    @property
    def summary(self) -> str:
        """Return one line about it."""
        return f"timm {version('timm')}, weights {self.licence}"


def is_timm(name: str) -> bool:
    """Tell a name of timm's from one of ours.

    Example:
        >>> is_timm("timm:resnet18"), is_timm("resnet18")
        (True, False)
    """
    return name.startswith(PREFIX)


def describe(name: str) -> Described:
    """Return what timm says of a network.

    Raises:
        SettingError: timm is not installed; says what to install.
        UnknownNameError: timm has no such network, or no such weights of it; lists
            the nearest.
    """
    full, says = _record(name)
    channels, height, width = says.input_size
    image = ImageSpec(channels=channels, height=height, width=width)
    preprocess = Preprocess(
        channels=channels,
        height=height,
        width=width,
        resize=_MODES.get(says.crop_mode, "crop"),
        mean=tuple(says.mean),
        std=tuple(says.std),
    )
    kept = f"the middle {says.crop_pct:.1%} kept" if says.crop_pct < 1 else "kept whole"
    return Described(
        name=full,
        image=image,
        classes=says.num_classes or CLASSES,
        preprocess=preprocess,
        remark=f"pictures are made as timm says of {full}, but for this: there they "
        f"are scaled {says.interpolation} and {kept}, here bilinear and kept whole",
        licence=says.license or "of no licence that timm knows",
        place=says.hf_hub_id or says.url or "",
        fixed=says.fixed_input_size,
    )


def build(name: str, image: ImageSpec, classes: int) -> nn.Module:
    """Build a network of timm with new weights.

    Raises:
        GeometryError: timm refuses the picture.
    """
    about = describe(name)
    settings: dict[str, Any] = {"num_classes": classes, "in_chans": image.channels}
    if about.fixed:  # the others take any size, and no such setting
        settings["img_size"] = (image.height, image.width)
    import timm

    try:
        made: nn.Module = timm.create_model(name.removeprefix(PREFIX), **settings)
    except Exception as error:  # its code may raise anything
        what = f"timm cannot build {about.name} for pictures of {image}: {_line(error)}"
        raise GeometryError(what, fix=f"it was made for {about.image}") from error
    return made


def fetch(name: str) -> dict[str, Tensor]:
    """Return a network's published weights, which timm fetches or has kept.

    Raises:
        WeightsError: They cannot be had.
    """
    about = describe(name)
    import timm

    try:
        made = timm.create_model(name.removeprefix(PREFIX), pretrained=True)
    except Exception as error:  # of a network, a disk, its own
        what = f"timm could not fetch the weights of {about.name}: {_line(error)}"
        fix = f"get them from {about.place} elsewhere and give the file: --pretrained"
        raise WeightsError(what, where="--pretrained", fix=fix) from error
    state: dict[str, Tensor] = made.state_dict()
    return state


def heads_of(model: nn.Module) -> str:
    """Return a pattern of the tensors that classes decide; empty if it is not timm's.

    Example:
        >>> heads_of(nn.Linear(2, 2))
        ''
    """
    says = getattr(model, "pretrained_cfg", None)
    named = says.get("classifier") if isinstance(says, dict) else None
    names = (named,) if isinstance(named, str) else named or ()
    return "|".join(rf"{re.escape(name)}\." for name in names)


def packages_of(name: str) -> tuple[str, ...]:
    """Return the packages beside ours that decide what a network is.

    Example:
        >>> packages_of("timm:resnet18"), packages_of("resnet18")
        (('timm',), ())
    """
    return ("timm",) if is_timm(name) else ()


def _record(name: str) -> tuple[str, Any]:
    """Return a network's full name in timm, and timm's record of it."""
    if find_spec("timm") is None:
        what = f"{name} is a network of the package timm, which is not installed"
        raise SettingError(what, where="--model", fix="pip install 'striate[timm]'")
    import timm
    from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

    asked = name.removeprefix(PREFIX)
    family, _, tag = asked.partition(".")
    known = timm.list_models()
    if family not in known:
        what = f"timm {version('timm')} has no network '{family}'"
        raise _unknown(what, closest_names(family, known))
    if tag and asked not in (tagged := get_arch_pretrained_cfgs(family)):
        what = f"timm {version('timm')} has no weights '{tag}' of {family}"
        raise _unknown(what, list(tagged))
    says = timm.get_pretrained_cfg(asked) or PretrainedCfg()
    return f"{family}.{says.tag}" if says.tag else family, says


def _unknown(what: str, close: list[str]) -> UnknownNameError:
    listed = f"did you mean {' or '.join(PREFIX + name for name in close)}? "
    fix = f"{listed if close else ''}timm.list_models() in Python has them all"
    return UnknownNameError(what, where="--model", fix=fix)


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or repr(error)
