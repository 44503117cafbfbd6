"""Inner outputs of any network, by dotted name or pattern; no layer runs in vain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, StriateError
from striate.core.hooks import StopForward, evaluation_mode, intercept_outputs
from striate.core.registry import unknown_name_error

_SIGNS = frozenset("*?[")
PIXELS = 32 * 224 * 224  # of images that go through a network together


def chosen(model: nn.Module, names: str | Sequence[str]) -> list[str]:
    """Return the calls that names and patterns mean, in the order of definition.

    `*` in a pattern runs across dots. A module that runs several times answers to its
    name for the first time and to `name #2` for the second.

    Raises:
        UnknownNameError: A name or pattern fits no module; lists the right ones.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> chosen(model, ["2", "[01]"]), chosen(model, "0")
        (['0', '1', '2'], ['0'])
    """
    known = [name for name, _ in model.named_modules() if name]
    found: set[str] = set()
    for asked in [names] if isinstance(names, str) else names:
        name, mark, number = asked.partition(" #")
        fitting = [key for key in known if _fits(key, name)]
        if not fitting or (mark and not number.isdecimal()):
            raise unknown_name_error("layer", asked, known)
        found |= {key + (mark + number if number != "1" else "") for key in fitting}
    place = {name: i for i, name in enumerate(known)}
    return sorted(found, key=lambda call: (place[module_of(call)], len(call), call))


def _fits(key: str, name: str) -> bool:
    return fnmatchcase(key, name) if _SIGNS & set(name) else key == name


def module_of(call: str) -> str:
    """Return the module's name of a call.

    Example:
        >>> module_of("relu #2")
        'relu'
    """
    return call.partition(" #")[0]


def run_to(model: nn.Module, x: Tensor, calls: Sequence[str]) -> dict[str, Tensor]:
    """Run one batch until every call asked for has been heard; return their outputs.

    What comes later is not computed. The caller lends the model (`evaluation_mode`) and
    chooses the gradient mode.

    Raises:
        StriateError: A call never came, or gave something that is no tensor.
    """
    found: dict[str, Tensor] = {}

    def hear(call: str, output: object) -> None:
        if call not in wanted:
            return
        if not isinstance(output, Tensor):
            what = f"{call} gives a {type(output).__name__}, not a tensor"
            raise StriateError(what, where=call, fix="ask for a module inside it")
        # A copy: an in-place activation behind the layer would change it.
        found[call] = output.detach().clone()
        if len(found) == len(wanted):
            raise StopForward

    wanted = set(calls)
    modules = list(dict.fromkeys(module_of(call) for call in calls))
    with intercept_outputs(model, modules, hear):
        try:
            forward(model, x)
        except StopForward:
            return {call: found[call] for call in calls}
    missing = next(call for call in calls if call not in found)
    what = f"{missing} did not run on this image"
    raise StriateError(what, where=missing, fix=f"these ran: {', '.join(found) or '–'}")


def forward(model: nn.Module, x: Tensor) -> object:
    """Run a network on a copy, as its first layer may work in place.

    Raises:
        GeometryError: The image does not go through.

    Example:
        >>> x = torch.tensor([-1.0, 2.0])
        >>> forward(nn.ReLU(inplace=True), x), x
        (tensor([0., 2.]), tensor([-1.,  2.]))
    """
    return run(model, x.clone())


def run(model: nn.Module, x: Tensor) -> object:
    """Run a network; say what it was given where it refuses.

    Raises:
        GeometryError: The image does not go through.
    """
    try:
        return model(x)
    except (RuntimeError, ValueError, TypeError) as error:
        given = "×".join(map(str, x.shape))
        reason = str(error).strip().partition("\n")[0]
        what = f"the network refuses a batch of {given}: {reason}"
        fix = "give (images, channels, height, width) as it was built for"
        raise GeometryError(what, fix=fix) from error


def features(
    model: nn.Module, x: Tensor, names: str | Sequence[str], batch_size: int = 64
) -> dict[str, Tensor]:
    """Return inner outputs as predictions, by dotted name or pattern.

    The network runs in evaluation mode, without gradients, no further than the last
    layer asked for, and is left as it was.

    Args:
        model: Any network.
        x: Images as the network takes them.
        names: Names (`layer3.2.conv2`), patterns (`layer*.relu`), or a later call of
            a reused module (`relu #2`).
        batch_size: Images at a time; memory holds one batch's way and the results.

    Shapes:
        (N, C, H, W) → for each layer (N, …)

    Raises:
        UnknownNameError: No layer has this name; lists the right ones.
        GeometryError: The network refuses the images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> found = features(model, torch.zeros(5, 1, 4, 4), ["0", "2"])
        >>> {name: tuple(out.shape) for name, out in found.items()}
        {'0': (5, 2, 2, 2), '2': (5, 8)}
    """
    check_batch(x)
    parts = list(captured(model, torch.split(x, batch_size), chosen(model, names)))
    return {call: torch.cat([part[call] for part in parts]) for call in parts[0]}


def captured(
    model: nn.Module, batches: Iterable[Tensor], calls: Sequence[str]
) -> Iterator[dict[str, Tensor]]:
    """Yield the outputs of calls, batch after batch; the model is whole in between."""
    for batch in batches:
        with evaluation_mode(model), torch.no_grad():
            found = run_to(model, batch, calls)
        yield found


def together(height: int, width: int, most: int, times: int = 1) -> int:
    """Return how many images of a size to run at once, so that memory has a bound.

    Args:
        height: Of the images.
        width: Likewise.
        most: However small they are.
        times: So many times as much is kept of each.

    Example:
        >>> together(28, 28, most=64), together(224, 224, 64), together(2048, 2048, 64)
        (64, 32, 1)
    """
    return max(1, min(most, PIXELS // (height * width * times)))


def check_batch(x: Tensor) -> None:
    """Refuse what is no batch of images.

    Raises:
        GeometryError: Not four dimensions, none at all, or whole numbers.
    """
    shape = "×".join(map(str, x.shape)) or "a single number"
    fix = "give (images, channels, height, width), such as x[None] for one image"
    if x.ndim != 4 or not x.numel():
        raise GeometryError(f"a batch of images has 4 dimensions, got {shape}", fix=fix)
    if not x.is_floating_point():
        what = f"images must be floating-point as the network takes them, got {x.dtype}"
        raise GeometryError(what, fix="scale them first: x.float() / 255")
