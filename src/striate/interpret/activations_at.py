"""Activations of any layers, by dotted name or pattern."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError, StriateError
from striate.core.hooks import StopForward, evaluation_mode, intercept_outputs
from striate.core.layer_names import layer_name, named_layers
from striate.core.registry import unknown_name_error

_WILDCARDS = frozenset("*?[")
MAX_PIXELS = 32 * 224 * 224  # pixels of all images in one batch, at most


def match_layers(model: nn.Module, names: str | Sequence[str]) -> list[str]:
    """Return the layer calls that match names or patterns, in definition order.

    `*` in a pattern also matches dots. The first call of a module has the name of the
    module, the second call has the name `name #2`.

    Raises:
        UnknownNameError: No module matches; the message lists the names.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> match_layers(model, ["2", "[01]"]), match_layers(model, "0")
        (['0', '1', '2'], ['0'])
    """
    module_names = [name for name, _ in named_layers(model) if name]
    calls: set[str] = set()
    for pattern in [names] if isinstance(names, str) else names:
        name, separator, number = layer_name(pattern).partition(" #")
        is_pattern = _WILDCARDS & set(name)
        matches = fnmatchcase if is_pattern else str.__eq__
        matching = [key for key in module_names if matches(key, name)]
        if not matching or (separator and not number.isdecimal()):
            raise unknown_name_error("layer", pattern, module_names)
        suffix = separator + number if number != "1" else ""
        calls |= {key + suffix for key in matching}
    order = {name: i for i, name in enumerate(module_names)}
    return sorted(calls, key=lambda call: (order[module_name(call)], len(call), call))


def matched_by_pattern(model: nn.Module, names: str | Sequence[str]) -> list[str]:
    """Return the calls that a pattern matches, and that no name gives exactly.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        >>> matched_by_pattern(model, ["0", "*"])
        ['1']
    """
    given = [names] if isinstance(names, str) else names
    exact = [name for name in given if not _WILDCARDS & set(name.partition(" #")[0])]
    own = set(match_layers(model, exact)) if exact else set()
    return [call for call in match_layers(model, names) if call not in own]


def module_name(call: str) -> str:
    """Return the module name of a layer call, without a call number such as ` #2`.

    Example:
        >>> module_name("relu #2")
        'relu'
    """
    return call.partition(" #")[0]


def run_until(
    model: nn.Module,
    x: Tensor,
    calls: Sequence[str],
    left_out: dict[str, str] | None = None,
) -> dict[str, Tensor]:
    """Run one batch until all given layer calls have run; return their outputs.

    Later layers are not computed. The caller protects the model (`evaluation_mode`) and
    sets the gradient mode. With `left_out`, the calls in it may be missing; their
    values become the reasons.

    Raises:
        StriateError: A call did not run, or its output is not a tensor.
    """
    outputs: dict[str, Tensor] = {}
    left_out = {} if left_out is None else left_out

    def store(call: str, output: object) -> None:
        if call not in pending:
            return
        if not isinstance(output, Tensor) and call in left_out:
            left_out[call] = f"its output is a {type(output).__name__}, not a tensor"
            return
        if not isinstance(output, Tensor):
            what = f"the output of {call} is a {type(output).__name__}, not a tensor"
            raise StriateError(what, where=call, fix="use one of its submodules")
        # A copy: an in-place activation after the layer would change it.
        outputs[call] = output.detach().clone()
        if len(outputs) == len(pending):
            raise StopForward

    pending = set(calls)
    modules = list(dict.fromkeys(module_name(call) for call in calls))
    with intercept_outputs(model, modules, store):
        try:
            forward(model, x)
        except StopForward:
            return {call: outputs[call] for call in calls}
    for call in left_out.keys() & pending - outputs.keys():
        left_out[call] = left_out[call] or "it did not run on these images"
    missing = next((c for c in calls if c not in outputs and c not in left_out), None)
    if missing is None and outputs:
        return {call: outputs[call] for call in calls if call in outputs}
    missing = missing or calls[0]
    what = f"{missing} did not run on this image"
    fix = f"layers that ran: {', '.join(outputs) or 'none'}"
    raise StriateError(what, where=missing, fix=fix)


def forward(model: nn.Module, x: Tensor) -> object:
    """Run a network on a copy of the input, as its first layer may work in place.

    Raises:
        GeometryError: The network rejects the images.

    Example:
        >>> x = torch.tensor([-1.0, 2.0])
        >>> forward(nn.ReLU(inplace=True), x), x
        (tensor([0., 2.]), tensor([-1.,  2.]))
    """
    return run_model(model, x.clone())


def run_model(model: nn.Module, x: Tensor) -> object:
    """Run a network; if it fails, raise an error that names the input shape.

    Raises:
        GeometryError: The network rejects the images.
    """
    try:
        return model(x)
    except (RuntimeError, ValueError, TypeError) as error:
        if "Inference tensors" in str(error):
            what = "the network runs in torch.inference_mode, so it has no gradients"
            fix = "use occlusion or scorecam, or remove inference_mode from forward()"
            raise GeometryError(what, fix=fix) from error
        shape = "×".join(map(str, x.shape))
        reason = str(error).strip().partition("\n")[0]
        what = f"the network does not accept a batch of {shape}: {reason}"
        fix = "use images of the shape that the network was built for"
        raise GeometryError(what, fix=fix) from error


def activations_at(
    model: nn.Module,  # any network
    x: Tensor,  # preprocessed images, (N, C, H, W)
    # Names (`layer3.2.conv2`), patterns (`layer*.relu`), or a later call of a reused
    # module (`relu #2`).
    names: str | Sequence[str],
    batch_size: int = 64,  # images per batch; memory holds one batch and the results
) -> dict[str, Tensor]:
    """Return the activations of layers, by dotted name or pattern.

    The network runs in evaluation mode, without gradients, up to the last of these
    layers. It is not modified.

    Shapes:
        (N, C, H, W) → for each layer (N, …)

    Raises:
        UnknownNameError: No layer has this name; the message lists similar names.
        GeometryError: The network rejects the images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> outputs = activations_at(model, torch.zeros(5, 1, 4, 4), ["0", "2"])
        >>> {name: tuple(out.shape) for name, out in outputs.items()}
        {'0': (5, 2, 2, 2), '2': (5, 8)}
    """
    check_image_batch(x)
    calls, inputs = match_layers(model, names), torch.split(x, batch_size)
    batches = list(iter_activations(model, inputs, calls))
    return {call: torch.cat([batch[call] for batch in batches]) for call in batches[0]}


def iter_activations(
    model: nn.Module,
    batches: Iterable[Tensor],
    calls: Sequence[str],
    left_out: dict[str, str] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield the outputs of layer calls, batch by batch.

    Calls in `left_out` may be missing in the first batch (`run_until`). They then are
    not computed in the other batches, and the other calls are removed from `left_out`.
    """
    for batch in batches:
        with evaluation_mode(model), torch.no_grad():
            outputs = run_until(model, batch, calls, left_out)
        yield outputs
        calls = list(outputs)
        if left_out is not None:
            for call in calls:
                left_out.pop(call, None)


def images_at_once(shape: Sequence[int], limit: int, memory_factor: int = 1) -> int:
    """Return a batch size that limits the memory of a forward pass.

    Args:
        shape: Shape of the images, which ends with height and width.
        limit: Maximum number of images.
        memory_factor: Memory per image, relative to a forward pass.

    Example:
        >>> [images_at_once((side, side), limit=64) for side in (28, 224, 2048)]
        [64, 32, 1]
    """
    pixels = shape[-2] * shape[-1]
    return max(1, min(limit, MAX_PIXELS // (pixels * memory_factor)))


def check_image_batch(x: Tensor) -> None:
    """Raise an error unless a tensor is a batch of images.

    Raises:
        GeometryError: The tensor has not four dimensions, is empty or of integer type.
    """
    shape = "×".join(map(str, x.shape)) or "a scalar"
    fix = "use the shape (images, channels, height, width); for one image x[None]"
    if x.ndim != 4 or not x.numel():
        raise GeometryError(f"a batch of images has 4 dimensions, got {shape}", fix=fix)
    if not x.is_floating_point():
        what = f"images must be preprocessed floating-point tensors, got {x.dtype}"
        raise GeometryError(what, fix="convert them first: x.float() / 255")
