"""Errors of a user's network: the line of code, and what the network refuses."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError, StriateError
from striate.core.hooks import model_restored, set_evaluation_mode
from striate.run.layout import WEIGHTS
from striate.run.python_network import is_python_network

ANY_BATCH = "make forward accept a batch of any size"
_LIBRARIES = (*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),)
_OWN = str(Path(__file__).parents[1])


def error_text(error: Exception) -> str:
    r"""Return the first line of an error, with its class unless torch has raised it.

    Example:
        >>> error_text(ValueError("too small\nby far")), error_text(RuntimeError("no"))
        ('ValueError: too small', 'no')
    """
    kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
    return kind + str(error).partition("\n")[0]


def code_line(error: BaseException) -> str | None:
    """Return file and line of the user's code that raised an error, if any.

    Example:
        >>> code_line(ValueError("never raised")) is None
        True
    """
    trace, line = error.__traceback__, None
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if Path(path).is_file() and not path.startswith((*_LIBRARIES, _OWN)):
            line = f"{path}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


@contextmanager
def network_errors(model: str, folder: Path) -> Iterator[None]:
    """Context manager: errors in the code of a user's file during a run get a message.

    Raises:
        SettingError: The code failed; the message has the line in the file.
    """
    try:
        yield
    except StriateError:
        raise
    except Exception as error:  # the code of a user may raise anything
        line = code_line(error)
        if line is None or not is_python_network(model):
            raise
        what = f"the network fails during the run: {error_text(error)}"
        fix = "correct the code and start a new run; the weights so far are in "
        raise SettingError(what, where=line, fix=f"{fix}{folder / WEIGHTS}") from error


def first_output(
    model: nn.Module, shape: tuple[int, int, int], device: torch.device
) -> Any:
    """Return the output in evaluation mode for one image; the mode is restored.

    The image consists of zeros, or of noise if the network refuses zeros.

    Args:
        model: Any network.
        shape: Channels, height and width of an image.
        device: The device of the network.

    Raises:
        GeometryError: The network refuses images of this shape, a batch of one image,
            or evaluation mode; the message says which, and names the line of the code.

    Example:
        >>> first_output(nn.Flatten(), (1, 2, 2), torch.device("cpu"))
        tensor([[0., 0., 0., 0.]])
    """
    training = model.training
    set_evaluation_mode(model)
    try:
        with torch.no_grad():
            return _output_or_error(model, shape, device)
    finally:
        model.train(training)


def _output_or_error(
    model: nn.Module, shape: tuple[int, int, int], device: torch.device
) -> Any:
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *shape, generator=draw).to(device)
    try:
        return model(torch.zeros(1, *shape, device=device))
    except Exception as error:  # foreign code may raise anything
        if _accepts(model, noise[:1]):
            return model(noise[:1])
        raise _refusal(error, model, noise) from error


def _accepts(model: nn.Module, x: Tensor) -> bool:
    try:
        model(x)
    except Exception:  # foreign code may raise anything
        return False
    return True


def _accepts_training(model: nn.Module, x: Tensor) -> bool:
    with model_restored(model, Tensor.clone) as trial:
        return _accepts(trial.train(), x)


def _refusal(error: Exception, model: nn.Module, noise: Tensor) -> GeometryError:
    """Return the error of a network that refuses one image of noise."""
    channels, height, width = noise.shape[1:]
    subject, fix = f"on images of {height}×{width}×{channels}", ""
    if _accepts(model, noise):
        subject, fix = "on a batch of one image", ANY_BATCH
    elif _accepts_training(model, noise):
        subject = "in evaluation mode"
        fix = "make forward run after model.eval() also; evaluation needs it"
    what = f"the network fails {subject}: {error_text(error)}"
    fix = fix or "change --image-size or --in-chans"
    return GeometryError(what, where=code_line(error), fix=fix)
