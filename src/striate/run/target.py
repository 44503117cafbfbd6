"""What a summary is about: a name, a file's class, a run folder, a sketch, a module."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from striate.audit.meta_mode import init_empty_weights
from striate.audit.sketch import is_sketch, sketch
from striate.core.errors import SettingError, StriateError
from striate.core.files import hash_rows
from striate.core.preprocess import Preprocess
from striate.core.registry import closest_names
from striate.models.catalogue import create_model, list_models, model_entry
from striate.models.timm import is_timm
from striate.run.layout import MANIFEST
from striate.run.run import Run

Shape = tuple[int, int, int]
SIDE = 224  # of a network that does not say
FILE = ".py:"
OWN = "_striate_target_"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A network to be looked at: what to call it, and its images.

    `preprocess` is what it was trained with; `trained` weights are not initial ones.
    """

    name: str
    model: nn.Module
    shape: Shape
    preprocess: Preprocess | None = None
    trained: bool = False


@dataclass(frozen=True, kw_only=True)
class SummaryRequest:
    """What the user said about images and classes; None where nothing."""

    image_size: int | tuple[int, int] | None = None
    in_chans: int | None = None
    num_classes: int | None = None


def resolve(target: str, wanted: SummaryRequest, *, real: bool = False) -> Target:
    """Return the network that a word on the command line means.

    Args:
        target: A name of `striate models`, `file.py:Class`, a run folder or its name,
            or a sketch.
        wanted: Image and classes asked for.
        real: Make weights, for a network that must be computed.

    Raises:
        SettingError: It is none of these; says what comes near.
        GeometryError: The network refuses the image at construction.
    """
    if is_sketch(target):
        return _sketched(target, wanted, real)
    if FILE in target:
        return _from_file(target, wanted, real)
    if is_run(target):
        return _from_run(target, wanted, real)
    return _named(target, wanted, real)


def is_run(target: str) -> bool:
    """Tell a run folder, or the name of one among our runs."""
    places = (Path(), Path("runs/train"), Path("runs/transfer"))
    return any((place / target / MANIFEST).is_file() for place in places)


def _built(build: Callable[[], nn.Module], real: bool, name: str = "") -> nn.Module:
    if real:
        return build()
    # timm looks at numbers while it builds, which ghosts have none of.
    with torch.device("meta") if is_timm(name) else init_empty_weights():
        return build()


def _sketched(target: str, wanted: SummaryRequest, real: bool) -> Target:
    if wanted != SummaryRequest():
        what = "a sketch holds its image and classes itself"
        raise SettingError(what, where=target, fix="change them in the sketch")
    shapes: list[Shape] = []

    def build() -> nn.Module:
        model, shape = sketch(target)
        shapes.append(shape)
        return model

    return Target(name=target, model=_built(build, real), shape=shapes[0])


def _named(target: str, wanted: SummaryRequest, real: bool) -> Target:
    try:
        entry = model_entry(target)
    except StriateError as error:
        if is_timm(target):
            raise
        raise _nothing(target) from error
    model = _built(lambda: create_model(target, **vars(wanted)), real, target)
    height, width = _sides(wanted.image_size, (entry.image.height, entry.image.width))
    channels = entry.image.channels if wanted.in_chans is None else wanted.in_chans
    return Target(name=target, model=model, shape=(channels, height, width))


def _nothing(target: str) -> SettingError:
    close = closest_names(target, list_models())
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    forms = "a name of `striate models`, file.py:Class, a run folder, or a sketch"
    sketched = "such as '28x28x1 > conv 3x3 8'"
    return SettingError(
        f"no network is '{target}'", fix=f"{hint}give {forms} {sketched}"
    )


def _sides(
    size: int | tuple[int, int] | None, default: tuple[int, int]
) -> tuple[int, int]:
    if size is None:
        return default
    return (size, size) if isinstance(size, int) else size


def _from_run(target: str, wanted: SummaryRequest, real: bool) -> Target:
    if wanted != SummaryRequest():
        what = "a run has its image size, channels and classes already"
        raise SettingError(what, where=target, fix="leave those flags out")
    run = Run(target)
    model = run.model if real else _built(run.fresh_model, real, run.recipe.model)
    preprocess = run.preprocess
    shape = preprocess.spec.shape
    return Target(
        name=run.path.name,
        model=model,
        shape=shape,
        preprocess=preprocess,
        trained=True,
    )


def _from_file(target: str, wanted: SummaryRequest, real: bool) -> Target:
    place, _, expression = target.partition(FILE)
    path = Path(place + FILE[:-1])
    build = _builder(path, expression, wanted)
    try:
        model = build() if real else _ghostly(build)
    except StriateError:
        raise
    except Exception as error:  # foreign code may raise anything
        raise _foreign(path, error) from error
    if not isinstance(model, nn.Module):
        what = f"{expression} gave a {type(model).__name__}, not an nn.Module"
        raise SettingError(
            what, where=path, fix="name a class or function of a network"
        )
    height, width = _sides(wanted.image_size, (SIDE, SIDE))
    channels = wanted.in_chans or first_channels(model)
    return Target(name=target, model=model, shape=(channels, height, width))


def _ghostly(build: Callable[[], Any]) -> Any:
    """Build without weights; for real where the constructor looks at values."""
    try:
        with init_empty_weights():
            return build()
    except (RuntimeError, NotImplementedError):
        return build()


def _builder(path: Path, expression: str, wanted: SummaryRequest) -> Callable[[], Any]:
    try:
        call = ast.parse(expression, mode="eval").body
        name = call.func if isinstance(call, ast.Call) else call
        if not isinstance(name, ast.Name):
            raise SyntaxError
        args, given = [], {}
        if isinstance(call, ast.Call):
            args = [ast.literal_eval(arg) for arg in call.args]
            given = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except (SyntaxError, ValueError) as error:
        what = f"'{expression}' is no class"
        fix = "write file.py:Class or file.py:Class(depth=3), with plain values"
        raise SettingError(what, where=path, fix=fix) from error
    make = _load(path, name.id)
    if not callable(make):
        what = f"'{expression}' is a {type(make).__name__}, which is not callable"
        raise SettingError(what, where=path, fix="name a class or a function")
    settings = {k: v for k, v in vars(wanted).items() if v is not None}
    taken = inspect.signature(make).parameters
    known = {k: v for k, v in settings.items() if k in taken}
    return lambda: make(*args, **{**known, **given})


def _load(path: Path, name: str) -> Any:
    if not path.is_file():
        raise SettingError("no such file", where=path, fix="give its path, then :Class")
    # A name of our own, which hides no module that the file itself imports.
    known = f"{OWN}{path.stem}_{hash_rows([str(path.resolve())])[:8]}"
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None  # noqa: S101 - the name ends in .py
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    # It stays there: dataclasses, type hints and pickles look a class's module up,
    # while the file runs and whenever its network is built or copied.
    sys.modules[known] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # foreign code may raise anything
        del sys.modules[known]
        raise _foreign(path, error) from error
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        have = [key for key, value in vars(module).items() if inspect.isclass(value)]
        what = f"the file has no '{name}'"
        raise SettingError(what, where=path, fix=f"it has: {', '.join(sorted(have))}")
    return getattr(module, name)


def _foreign(path: Path, error: Exception) -> SettingError:
    trace = error.__traceback__
    line = 0
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == path.name:
            line = trace.tb_lineno
        trace = trace.tb_next
    what = f"the file's own code failed: {type(error).__name__}: {error}"
    where = f"{path}, line {line}" if line else path
    return SettingError(what, where=where, fix="mend it there; it runs as it stands")


def first_channels(model: nn.Module) -> int:
    """Return the channels that the first convolution takes; 3 where there is none.

    Example:
        >>> first_channels(nn.Sequential(nn.Conv2d(1, 6, 5)))
        1
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3
