"""Build the network of TARGET: model name, FILE.py:CLASS, run, or sketch of layers."""

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

from striate.audit.meta_device import init_empty_weights
from striate.audit.sketch_parser import is_sketch, sketch
from striate.core.errors import SettingError, StriateError
from striate.core.files import hash_rows
from striate.core.preprocess_config import Preprocess
from striate.core.registry import closest_names
from striate.models.catalogue import create_model, list_models, model_entry
from striate.models.timm import is_timm
from striate.run.layout import existing_run
from striate.run.run import Run

Shape = tuple[int, int, int]
Sides = tuple[int, int]
DEFAULT_SIZE = 224  # default input size of FILE.py:CLASS
FILE = ".py:"
MODULE_PREFIX = "_striate_target_"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A network with its name and its input shape."""

    name: str
    model: nn.Module
    shape: Shape  # input shape (channels, height, width)
    # preprocessing that the network was trained with, if known
    preprocess: Preprocess | None = None
    # whether the network has trained weights; None: the code of a file may load some
    trained: bool | None = False


@dataclass(frozen=True, kw_only=True)
class SummaryRequest:
    """Image size, input channels and class count; None for a value that is not set."""

    image_size: int | tuple[int, int] | None = None
    in_chans: int | None = None
    num_classes: int | None = None


def resolve_target(
    target: str, request: SummaryRequest, *, real: bool = False
) -> Target:
    """Build the network of a TARGET given on the command line.

    With `real`, the weights are allocated, so that the network can run.

    Raises:
        SettingError: The target is invalid; the message lists similar names.
        GeometryError: The network cannot be built for this image size.
    """
    if is_sketch(target):
        return _sketched(target, request, real)
    if FILE in target:
        return _from_file(target, request, real)
    if existing_run(target):
        return _from_run(target, request, real)
    return _named(target, request, real)


def _built(build: Callable[[], nn.Module], real: bool, name: str = "") -> nn.Module:
    if real:
        return build()
    # timm reads weight values while it builds a model, which needs the meta device.
    with torch.device("meta") if is_timm(name) else init_empty_weights():
        return build()


def _sketched(target: str, request: SummaryRequest, real: bool) -> Target:
    if request != SummaryRequest():
        what = "--image-size, --in-chans and --num-classes do not apply to a sketch"
        raise SettingError(what, where=target, fix="change the sketch instead")
    shapes: list[Shape] = []

    def build() -> nn.Module:
        model, shape = sketch(target)
        shapes.append(shape)
        return model

    return Target(name=target, model=_built(build, real), shape=shapes[0])


def _named(target: str, request: SummaryRequest, real: bool) -> Target:
    try:
        entry = model_entry(target)
    except StriateError as error:
        if is_timm(target):
            raise
        raise _unknown_target(target) from error
    model = _built(lambda: create_model(target, **vars(request)), real, target)
    height, width = _sides(request.image_size, (entry.image.height, entry.image.width))
    channels = entry.image.channels if request.in_chans is None else request.in_chans
    return Target(name=target, model=model, shape=(channels, height, width))


def _unknown_target(target: str) -> SettingError:
    close = closest_names(target, list_models())
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    forms = "a name from `striate models`, file.py:Class, a run folder, or a sketch"
    example = "such as '28x28x1 > conv 3x3 8'"
    what = f"no network is called '{target}'"
    return SettingError(what, fix=f"{hint}give {forms} {example}")


def _sides(size: int | Sides | None, default: Sides) -> Sides:
    if size is None:
        return default
    return (size, size) if isinstance(size, int) else size


def _from_run(target: str, request: SummaryRequest, real: bool) -> Target:
    if request != SummaryRequest():
        what = "--image-size, --in-chans and --num-classes do not apply to a run"
        raise SettingError(what, where=target, fix="leave out these flags")
    run = Run(target)
    model = run.model if real else _built(run.fresh_model, real, run.recipe.model)
    return Target(
        name=run.path.name,
        model=model,
        shape=run.preprocess.spec.shape,
        preprocess=run.preprocess,
        trained=True,
    )


def _from_file(target: str, request: SummaryRequest, real: bool) -> Target:
    stem, _, expression = target.partition(FILE)
    path = Path(stem + FILE[:-1])
    build = _builder(path, expression, request)
    try:
        model = build() if real else _build_without_weights(build)
    except StriateError:
        raise
    except Exception as error:  # foreign code may raise anything
        raise _user_code_error(path, error) from error
    if not isinstance(model, nn.Module):
        what = f"{expression} returned a {type(model).__name__}, not an nn.Module"
        fix = "give a class or a function that returns a network"
        raise SettingError(what, where=path, fix=fix)
    height, width = _sides(request.image_size, (DEFAULT_SIZE, DEFAULT_SIZE))
    channels = request.in_chans or first_channels(model)
    shape = channels, height, width
    return Target(name=target, model=model, shape=shape, trained=None)


def _build_without_weights(build: Callable[[], Any]) -> Any:
    """Build a network, if possible without allocating memory for the weights."""
    try:
        with init_empty_weights():
            return build()
    except (RuntimeError, NotImplementedError):
        return build()


def _builder(path: Path, expression: str, request: SummaryRequest) -> Callable[[], Any]:
    try:
        call = ast.parse(expression, mode="eval").body
        name = call.func if isinstance(call, ast.Call) else call
        if not isinstance(name, ast.Name):
            raise SyntaxError
        args, kwargs = [], {}
        if isinstance(call, ast.Call):
            args = [ast.literal_eval(arg) for arg in call.args]
            kwargs = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except (SyntaxError, ValueError) as error:
        what = f"'{expression}' is not the name or the call of a class"
        fix = "write file.py:Class or file.py:Class(depth=3) with literal values"
        raise SettingError(what, where=path, fix=fix) from error
    make = _load(path, name.id)
    if not callable(make):
        what = f"'{expression}' is a {type(make).__name__}, which is not callable"
        raise SettingError(what, where=path, fix="give a class or a function")
    settings = {k: v for k, v in vars(request).items() if v is not None}
    parameters = inspect.signature(make).parameters
    accepted = {k: v for k, v in settings.items() if k in parameters}
    return lambda: make(*args, **{**accepted, **kwargs})


def _load(path: Path, name: str) -> Any:
    if not path.is_file():
        raise SettingError("the file does not exist", where=path, fix="check the path")
    # An unusual module name, so that it does not shadow an import of the file.
    module_name = f"{MODULE_PREFIX}{path.stem}_{hash_rows([str(path.resolve())])[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None  # noqa: S101 - the name ends in .py
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    # The module stays in sys.modules: dataclasses, type hints and pickles look up the
    # module of a class while the file runs and when the network is built or copied.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # foreign code may raise anything
        del sys.modules[module_name]
        raise _user_code_error(path, error) from error
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        what = f"the file does not define '{name}'"
        fix = f"use one of its Python classes: {', '.join(sorted(classes))}"
        raise SettingError(what, where=path, fix=fix)
    return getattr(module, name)


def _user_code_error(path: Path, error: Exception) -> SettingError:
    trace = error.__traceback__
    line = 0
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == path.name:
            line = trace.tb_lineno
        trace = trace.tb_next
    what = f"the code of the file failed: {type(error).__name__}: {error}"
    where = f"{path}, line {line}" if line else path
    return SettingError(what, where=where, fix="correct the code")


def first_channels(model: nn.Module) -> int:
    """Return the channel count of the first convolution's input; 3 if there is none.

    Example:
        >>> first_channels(nn.Sequential(nn.Conv2d(1, 6, 5)))
        1
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3
