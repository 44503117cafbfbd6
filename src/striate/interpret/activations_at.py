"""Inner outputs of any network, by dotted name or pattern; no layer runs in vain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, StriateError
from striate.core.hooks import Enough, untouched, visited
from striate.core.registry import unknown

_WILDCARDS = frozenset("*?[")
MAX_PIXELS = 32 * 224 * 224  # of images that go through a network together


def match_layers(model: nn.Module, names: str | Sequence[str]) -> list[str]:
    """Return the calls that names and patterns mean, in the order of definition.

    `*` in a pattern runs across dots. A module that runs several times answers to its
    name for the first time and to `name #2` for the second.

    Raises:
        UnknownNameError: A name or pattern fits no module; lists the right ones.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> match_layers(model, ["2", "[01]"]), match_layers(model, "0")
        (['0', '1', '2'], ['0'])
    """
    module_names = [name for name, _ in model.named_modules() if name]
    outputs: set[str] = set()
    for pattern in [names] if isinstance(names, str) else names:
        name, separator, number = pattern.partition(" #")
        matching = [key for key in module_names if _matches(key, name)]
        if not matching or (separator and not number.isdecimal()):
            raise unknown("layer", pattern, module_names)
        outputs |= {
            key + (separator + number if number != "1" else "") for key in matching
        }
    order = {name: i for i, name in enumerate(module_names)}
    return sorted(outputs, key=lambda call: (order[module_name(call)], len(call), call))


def _matches(key: str, name: str) -> bool:
    return fnmatchcase(key, name) if _WILDCARDS & set(name) else key == name


def module_name(call: str) -> str:
    """Return the module's name of a call.

    Example:
        >>> module_name("relu #2")
        'relu'
    """
    return call.partition(" #")[0]


def run_until(model: nn.Module, x: Tensor, calls: Sequence[str]) -> dict[str, Tensor]:
    """Run one batch until every call asked for has been heard; return their outputs.

    What comes later is not computed. The caller lends the model (`untouched`) and
    chooses the gradient mode.

    Raises:
        StriateError: A call never came, or gave something that is no tensor.
    """
    outputs: dict[str, Tensor] = {}

    def store(call: str, output: object) -> None:
        if call not in pending:
            return
        if not isinstance(output, Tensor):
            what = f"{call} gives a {type(output).__name__}, not a tensor"
            raise StriateError(what, where=call, fix="ask for a module inside it")
        # A copy: an in-place activation behind the layer would change it.
        outputs[call] = output.detach().clone()
        if len(outputs) == len(pending):
            raise Enough

    pending = set(calls)
    modules = list(dict.fromkeys(module_name(call) for call in calls))
    with visited(model, modules, store):
        try:
            forward(model, x)
        except Enough:
            return {call: outputs[call] for call in calls}
    missing = next(call for call in calls if call not in outputs)
    what = f"{missing} did not run on this image"
    raise StriateError(
        what, where=missing, fix=f"these ran: {', '.join(outputs) or '–'}"
    )


def forward(model: nn.Module, x: Tensor) -> object:
    """Run a network on a copy, as its first layer may work in place.

    Raises:
        GeometryError: The image does not go through.

    Example:
        >>> x = torch.tensor([-1.0, 2.0])
        >>> forward(nn.ReLU(inplace=True), x), x
        (tensor([0., 2.]), tensor([-1.,  2.]))
    """
    return run_model(model, x.clone())


def run_model(model: nn.Module, x: Tensor) -> object:
    """Run a network; say what it was given where it refuses.

    Raises:
        GeometryError: The image does not go through.
    """
    try:
        return model(x)
    except (RuntimeError, ValueError, TypeError) as error:
        shape = "×".join(map(str, x.shape))
        reason = str(error).strip().partition("\n")[0]
        what = f"the network refuses a batch of {shape}: {reason}"
        fix = "give (images, channels, height, width) as it was built for"
        raise GeometryError(what, fix=fix) from error


def activations_at(
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
        >>> outputs = activations_at(model, torch.zeros(5, 1, 4, 4), ["0", "2"])
        >>> {name: tuple(out.shape) for name, out in outputs.items()}
        {'0': (5, 2, 2, 2), '2': (5, 8)}
    """
    check_images(x)
    batches = list(
        iter_activations(model, torch.split(x, batch_size), match_layers(model, names))
    )
    return {call: torch.cat([batch[call] for batch in batches]) for call in batches[0]}


def iter_activations(
    model: nn.Module, batches: Iterable[Tensor], calls: Sequence[str]
) -> Iterator[dict[str, Tensor]]:
    """Yield the outputs of calls, batch after batch; the model is whole in between."""
    for batch in batches:
        with untouched(model), torch.no_grad():
            outputs = run_until(model, batch, calls)
        yield outputs


def images_at_once(height: int, width: int, limit: int, memory_factor: int = 1) -> int:
    """Return how many images of a size to run at once, so that memory has a bound.

    Args:
        height: Of the images.
        width: Likewise.
        limit: However small they are.
        memory_factor: So many times as much is kept of each.

    Example:
        >>> images_at_once(28, 28, limit=64), images_at_once(224, 224, 64), images_at_once(2048, 2048, 64)
        (64, 32, 1)
    """
    return max(1, min(limit, MAX_PIXELS // (height * width * memory_factor)))


def check_images(x: Tensor) -> None:
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
