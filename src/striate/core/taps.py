"""The only hooks: look at a model's inner outputs and leave it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from striate.core.errors import UnknownNameError
from striate.core.registry import unknown

Sink = Callable[[str, Tensor], None]


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a model in evaluation mode; give back modes and random state as found.

    Example:
        >>> model = nn.Dropout()
        >>> with untouched(model) as lent:
        ...     lent.training
        False
        >>> model.training
        True
    """
    modes = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(devices=[]):
        try:
            model.eval()
            yield model
        finally:
            for module, mode in modes.items():
                module.training = mode


@contextmanager
def tapped(model: nn.Module, names: Sequence[str], sink: Sink) -> Iterator[None]:
    """Hand every output of the named modules to `sink`, in the order they run.

    Raises:
        UnknownNameError: The model has no module of that name; lists the nearest.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with tapped(model, ["0"], lambda name, out: print(name, tuple(out.shape))):
        ...     _ = model(torch.zeros(1, 2))
        0 (1, 3)
    """
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name in names:
            if name not in modules:
                raise _no_layer(name, modules)
            handle = modules[name].register_forward_hook(_hand_over(name, sink))
            stack.callback(handle.remove)
        yield


def _no_layer(name: str, modules: dict[str, nn.Module]) -> UnknownNameError:
    return unknown("layer", name, [key for key in modules if key])


def _hand_over(name: str, sink: Sink) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sink(name, output)

    return hook


def leaves(model: nn.Module) -> list[str]:
    """Return the dotted names of the modules that hold no others.

    Example:
        >>> leaves(nn.Sequential(nn.Flatten(), nn.Sequential(nn.ReLU())))
        ['0', '1.0']
    """
    return [name for name, m in model.named_modules() if name and not any(m.children())]
