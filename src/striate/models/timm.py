"""Networks of the timm package by name: `timm:resnet18`, `timm:resnet18.a1_in1k`.

timm is an optional dependency. Only names from timm's own list are accepted, although
timm also accepts URLs and folders. A tag after a dot selects the pretrained weights;
without a tag, timm's default weights are selected.
"""

from __future__ import annotations

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
from striate.core.preprocess_config import ImageSpec, Preprocess
from striate.core.registry import closest_names

PREFIX = "timm:"
CLASSES = 1000  # default for weights without a classifier
# timm's crop modes and the names of our ways to resize.
_MODES = {"center": "crop", "squash": "squash", "border": "pad"}


@dataclass(frozen=True, kw_only=True)
class TimmDescription:
    """Description of a timm network: input, classes, preprocessing, license."""

    name: str  # name with the tag of the weights, if there is one
    image: ImageSpec  # input of the network
    classes: int  # number of outputs
    preprocess: Preprocess  # timm's preprocessing, as far as striate supports it
    remark: str  # the difference from timm's preprocessing, in words
    license: str  # license of the weights
    url: str  # where the weights are published
    fixed_size: bool  # whether the network is built for one image size only

    @property
    def summary(self) -> str:
        """Return a one-line summary: timm version and license of the weights."""
        return f"timm {version('timm')}, weights {self.license}"


def is_timm(name: str) -> bool:
    """Return whether a name has the prefix `timm:`.

    Example:
        >>> is_timm("timm:resnet18"), is_timm("resnet18")
        (True, False)
    """
    return name.startswith(PREFIX)


def describe(name: str) -> TimmDescription:
    """Return timm's description of a network and its pretrained weights.

    Raises:
        SettingError: timm is not installed; the message gives the pip command.
        UnknownNameError: timm has no network or no weights of this name; the message
            lists similar names.
    """
    full, config = _config(name)
    channels, height, width = config.input_size
    image = ImageSpec(channels=channels, height=height, width=width)
    preprocess = Preprocess(
        channels=channels,
        height=height,
        width=width,
        resize=_MODES.get(config.crop_mode, "crop"),
        mean=tuple(config.mean),
        std=tuple(config.std),
    )
    cropped = config.crop_pct < 1
    crop = f"cropped to the central {config.crop_pct:.1%}" if cropped else "not cropped"
    return TimmDescription(
        name=full,
        image=image,
        classes=config.num_classes or CLASSES,
        preprocess=preprocess,
        remark=f"preprocessing as for {full} in timm, except for resizing: in timm "
        f"{config.interpolation} and {crop}, here bilinear and not cropped",
        license=config.license or "without a license in timm",
        url=config.hf_hub_id or config.url or "",
        fixed_size=config.fixed_input_size,
    )


def build(name: str, image: ImageSpec, classes: int) -> nn.Module:
    """Build a timm network with random initial weights.

    Raises:
        GeometryError: timm rejects the image size.
    """
    about = describe(name)
    settings: dict[str, Any] = {"num_classes": classes, "in_chans": image.channels}
    if about.fixed_size:  # other networks accept any size and have no such argument
        settings["img_size"] = (image.height, image.width)
    import timm

    try:
        model: nn.Module = timm.create_model(name.removeprefix(PREFIX), **settings)
    except Exception as error:  # its code may raise anything
        what = f"timm cannot build {about.name} for images of {image}: {_line(error)}"
        raise GeometryError(what, fix=f"use the image size {about.image}") from error
    return model


def fetch(name: str) -> dict[str, Tensor]:
    """Return a network's pretrained weights from timm's cache or download.

    Raises:
        WeightsError: timm could not load the weights.
    """
    about = describe(name)
    import timm

    try:
        model = timm.create_model(name.removeprefix(PREFIX), pretrained=True)
    except Exception as error:  # errors of the network, the disk, timm itself
        what = f"timm could not fetch the weights of {about.name}: {_line(error)}"
        fix = f"download them by hand from {about.url} and use --pretrained PATH"
        raise WeightsError(what, where="--pretrained", fix=fix) from error
    state: dict[str, Tensor] = model.state_dict()
    return state


def classifiers_of(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a timm network's classifier layers; else an empty tuple.

    Example:
        >>> classifiers_of(nn.Linear(2, 2))
        ()
    """
    config = getattr(model, "pretrained_cfg", None)
    names = config.get("classifier") if isinstance(config, dict) else None
    return (names,) if isinstance(names, str) else tuple(names or ())


def packages_of(name: str) -> tuple[str, ...]:
    """Return the packages whose versions affect a network: `timm`, or none.

    Example:
        >>> packages_of("timm:resnet18"), packages_of("resnet18")
        (('timm',), ())
    """
    return ("timm",) if is_timm(name) else ()


def _config(name: str) -> tuple[str, Any]:
    """Return a network's full name in timm, and its pretrained configuration."""
    if find_spec("timm") is None:
        what = f"{name} is a network of the package timm, which is not installed"
        raise SettingError(what, where="--model", fix="pip install 'striate[timm]'")
    import timm
    from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

    timm_name = name.removeprefix(PREFIX)
    family, _, tag = timm_name.partition(".")
    known = timm.list_models()
    if family not in known:
        what = f"timm {version('timm')} has no network '{family}'"
        raise _unknown(what, closest_names(family, known))
    if tag and timm_name not in (tagged := get_arch_pretrained_cfgs(family)):
        what = f"timm {version('timm')} has no weights '{tag}' of {family}"
        raise _unknown(what, list(tagged))
    config = timm.get_pretrained_cfg(timm_name) or PretrainedCfg()
    return f"{family}.{config.tag}" if config.tag else family, config


def _unknown(what: str, close: list[str]) -> UnknownNameError:
    listed = f"did you mean {' or '.join(PREFIX + name for name in close)}? "
    fix = f"{listed if close else ''}timm.list_models() in Python lists all names"
    return UnknownNameError(what, where="--model", fix=fix)


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or repr(error)
