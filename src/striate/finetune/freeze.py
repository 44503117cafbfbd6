"""Frozen means frozen: weights and running statistics, in any loop, and proven."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from striate.core.errors import SettingError, UnknownNameError, WeightsError
from striate.core.frozen_mode import freeze_mode, has_frozen_mode, unfreeze_mode
from striate.core.registry import closest_names

_SIGNS = frozenset("*?[")
LISTED = 12  # layers named in a message


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What of a network does not learn.

    Args:
        layers: Dotted names of the modules that hold it, in order.
        parameters: Numbers that would otherwise learn.
        sha256: Over name, shape and bytes of every frozen tensor and statistic.
    """

    layers: tuple[str, ...]
    parameters: int
    sha256: str

    def __str__(self) -> str:
        if not self.layers:
            return "nothing is frozen"
        first, last = self.layers[0], self.layers[-1]
        span = first if first == last else f"{first} … {last}"
        count = f"{len(self.layers)} {'layer' if first == last else 'layers'}"
        return f"{span}: {count}, {self.parameters:,} parameters, {self.sha256[:16]}"


def freeze(model: nn.Module, patterns: str | Sequence[str]) -> Frozen:
    """Keep layers as they are: no gradient, and no drift of running statistics.

    Batch norms in frozen layers stay in evaluation mode whatever `model.train()` says.
    A name means the module and everything in it; `*` in a pattern runs across dots.

    Args:
        model: Any network; changed in place. Other layers are left as they were.
        patterns: Names or patterns, such as `["conv1", "block*"]`.

    Raises:
        UnknownNameError: A pattern fits no layer; lists the nearest.
        SettingError: Nothing would be left to learn.

    Example:
        >>> layers = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)
        >>> model = nn.Sequential(*layers)
        >>> freeze(model, "[01]").parameters
        24
        >>> _ = model.train()
        >>> [layer.training for layer in model]
        [True, False, True]
    """
    covered = _covered(model, patterns)
    still = {id(p) for module in covered for p in module.parameters(recurse=False)}
    if not any(p.requires_grad and id(p) not in still for p in model.parameters()):
        what = "everything is frozen, and nothing is left to learn"
        fix = f"leave a layer out, such as {_last(model)}"
        raise SettingError(what, where="--freeze", fix=fix)
    for module in covered:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if any(True for _ in module.buffers(recurse=False)):
            freeze_mode(module)
    return frozen(model)


def check_patterns(model: nn.Module, patterns: Sequence[str]) -> None:
    """Refuse patterns that fit only layers with nothing to freeze, such as a pool.

    Raises:
        UnknownNameError: A pattern fits no layer; lists the nearest.
        SettingError: What it fits has neither parameters nor statistics.

    Example:
        >>> check_patterns(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ["1"])
        Traceback (most recent call last):
        striate.core.errors.SettingError: '1' has no weights, so it freezes nothing
          where: --freeze
          do:    name layers that have some, such as 0
    """
    for pattern in patterns:
        held_there = [m.state_dict() for m in _covered(model, [pattern])]
        if not any(held_there):
            what = f"'{pattern}' has no weights, so it freezes nothing"
            fix = f"name layers that have some, such as {_last(model)}"
            raise SettingError(what, where="--freeze", fix=fix)


def keep_frozen(model: nn.Module) -> Frozen:
    """Let what a user froze by `requires_grad` alone be frozen whole.

    A layer with running statistics is held if it has parameters and none of them
    learns; one without parameters says nothing of itself and is left alone.

    Example:
        >>> norm = nn.BatchNorm2d(2).requires_grad_(False)
        >>> keep_frozen(norm).layers, norm.train().training
        (('(the network)',), False)
    """
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        still = own and not any(parameter.requires_grad for parameter in own)
        if still and any(True for _ in module.buffers(recurse=False)):
            freeze_mode(module)
    return frozen(model)


def hold_statistics(module: nn.Module) -> int:
    """Keep the running statistics of all batch norms, and let the rest learn.

    Args:
        module: A network, or a part of one; changed in place.

    Returns:
        How many batch norms there are.

    Example:
        >>> norm = nn.BatchNorm2d(2)
        >>> hold_statistics(norm), norm.train().training, norm.weight.requires_grad
        (1, False, True)
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    counting = [norm for norm in norms if norm.running_mean is not None]
    for norm in counting:
        freeze_mode(norm)
    return len(counting)


def unfreeze(model: nn.Module, patterns: str | Sequence[str] = "*") -> None:
    """Let layers learn again, statistics too, in the mode their network is in.

    Raises:
        UnknownNameError: A pattern fits no layer; lists the nearest.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(2), nn.Linear(2, 2))
        >>> _ = freeze(model, "0")
        >>> unfreeze(model, "0")
        >>> model[0].training, model[0].weight.requires_grad
        (True, True)
    """
    for module in _covered(model, patterns):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)
        unfreeze_mode(module, model.training)


def frozen(model: nn.Module) -> Frozen:
    """Return what of a network is frozen now, with its hash.

    Example:
        >>> frozen(nn.Linear(2, 2)).layers
        ()
    """
    layers: dict[str, None] = {}
    numbers, digest = 0, hashlib.sha256()
    counted: set[int] = set()  # tied weights have several names, and are hashed by each
    for layer, name, tensor, learns in _still(model):
        layers[layer] = None
        numbers += tensor.numel() * (learns and id(tensor) not in counted)
        counted.add(id(tensor))
        head = f"{layer}.{name} {tensor.dtype} {tuple(tensor.shape)}\n"
        digest.update(head.encode())
        if tensor.is_meta:  # a plan of a network, without numbers
            continue
        plain = tensor.detach().cpu().contiguous()
        # Bytes, because NumPy has no bfloat16; a scalar must get a dimension first.
        digest.update(plain.reshape(-1).view(dtype=torch.uint8).numpy().data)
    return Frozen(layers=tuple(layers), parameters=numbers, sha256=digest.hexdigest())


def check_frozen(model: nn.Module, sha256: str) -> None:
    """Hold a network to what was frozen when it began to learn.

    Raises:
        WeightsError: A frozen weight or statistic is not what it was.
    """
    found = frozen(model)
    if found.sha256 != sha256:
        what = (
            f"frozen layers have changed: their hash was {sha256[:16]} and is "
            f"{found.sha256[:16]}"
        )
        fix = "a layer writes to its own tensors; leave it out of --freeze"
        raise WeightsError(what, where=str(found), fix=fix)


def _still(model: nn.Module) -> Iterator[tuple[str, str, Tensor, bool]]:
    """Yield layer, name and tensor of what is frozen, and whether it could learn."""
    for layer, module in model.named_modules():
        where = layer or "(the network)"
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                yield where, name, parameter, True
        if has_frozen_mode(module):
            for name, buffer in module.named_buffers(recurse=False):
                yield where, name, buffer, False


def _covered(model: nn.Module, patterns: str | Sequence[str]) -> list[nn.Module]:
    """Return the modules that patterns mean, and all within them, each once."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    known = dict(model.named_modules())
    found: dict[int, nn.Module] = {}
    for pattern in patterns:
        fitting = [module for name, module in known.items() if _fits(name, pattern)]
        if not fitting:
            raise _fits_none(pattern, [name for name in known if name])
        for module in fitting:
            found |= {id(inner): inner for inner in module.modules()}
    return list(found.values())


def _fits(name: str, pattern: str) -> bool:
    if _SIGNS & set(pattern):
        return bool(name) and fnmatchcase(name, pattern)
    return bool(name) and name == pattern


def _fits_none(pattern: str, known: Sequence[str]) -> UnknownNameError:
    close = closest_names(pattern.strip("*?."), known)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    outer = [name for name in known if "." not in name]
    rest = f", … ({len(outer)} in all)" if outer[LISTED:] else ""
    fix = f"{hint}its layers: {', '.join(outer[:LISTED])}{rest}; * stands for any"
    what = f"no layer is called '{pattern}', so it freezes nothing"
    return UnknownNameError(what, where="--freeze", fix=fix)


def _last(model: nn.Module) -> str:
    return [name for name, _ in model.named_parameters()][-1].rpartition(".")[0]
