"""Freeze layers (weights and running statistics), and detect changes by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from striate.core.errors import SettingError, UnknownNameError, WeightsError
from striate.core.format import count_text
from striate.core.frozen_eval_mode import freeze_mode, has_frozen_mode, unfreeze_mode
from striate.core.layer_names import layer_name, named_layers
from striate.core.registry import closest_names

_WILDCARDS = frozenset("*?[")
MAX_NAMED = 12  # layers named in a message


@dataclass(frozen=True, kw_only=True)
class FrozenLayers:
    """Frozen layers of a model, with a SHA-256 hash of the frozen tensors."""

    layers: tuple[str, ...]  # dotted names of the frozen modules, in order
    parameters: int  # number of frozen parameters
    sha256: str  # hash of name, shape and bytes of every frozen parameter and buffer

    def __str__(self) -> str:
        if not self.layers:
            return "nothing is frozen"
        first, last = self.layers[0], self.layers[-1]
        span = first if first == last else f"{first} … {last}"
        count = count_text(len(self.layers), "layer")
        return (
            f"{span}: {count}, {count_text(self.parameters, 'parameter')}, "
            f"{self.sha256[:16]}"
        )


def freeze(model: nn.Module, patterns: str | Sequence[str]) -> FrozenLayers:
    """Freeze layers: switch off gradients and updates of running statistics.

    Batch norms in frozen layers stay in evaluation mode even after `model.train()`.
    A name selects the module and all submodules; `*` in a pattern also matches dots.

    Args:
        model: Any model; changed in place. Layers that do not match are not changed.
        patterns: Names or patterns, such as `["conv1", "block*"]`.

    Raises:
        UnknownNameError: A pattern matches no layer; lists similar names.
        SettingError: No layer would be left to train.

    Example:
        >>> layers = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)
        >>> model = nn.Sequential(*layers)
        >>> freeze(model, "[01]").parameters
        24
        >>> _ = model.train()
        >>> [layer.training for layer in model]
        [True, False, True]
    """
    matched = _matched(model, patterns)
    ids = {id(p) for module in matched for p in module.parameters(recurse=False)}
    if not any(p.requires_grad and id(p) not in ids for p in model.parameters()):
        what = "--freeze selects all layers, so no layer is left to train"
        fix = f"do not freeze all layers; omit one, such as {_last(model)}"
        raise SettingError(what, where="--freeze", fix=fix)
    for module in matched:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if any(True for _ in module.buffers(recurse=False)):
            freeze_mode(module)
    return frozen_layers(model)


def check_patterns(model: nn.Module, patterns: Sequence[str]) -> None:
    """Raise an error for patterns that match only layers without weights (pooling).

    Raises:
        UnknownNameError: A pattern matches no layer; lists similar names.
        SettingError: The layers have neither parameters nor running statistics.

    Example:
        >>> check_patterns(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ["1"])
        Traceback (most recent call last):
        striate.core.errors.SettingError: '1' has no weights, so nothing is frozen
          where: --freeze
          do:    name layers with weights, such as 0
    """
    for pattern in patterns:
        if not any(m.state_dict() for m in _matched(model, [pattern])):
            what = f"'{pattern}' has no weights, so nothing is frozen"
            fix = f"name layers with weights, such as {_last(model)}"
            raise SettingError(what, where="--freeze", fix=fix)


def freeze_stats_of_frozen(model: nn.Module) -> FrozenLayers:
    """Freeze the running statistics of layers whose parameters are all frozen.

    This is for models in which the user has set only `requires_grad`. Layers without
    parameters are not changed.

    Example:
        >>> norm = nn.BatchNorm2d(2).requires_grad_(False)
        >>> freeze_stats_of_frozen(norm).layers, norm.train().training
        (('(the network)',), False)
    """
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        is_frozen = own and not any(parameter.requires_grad for parameter in own)
        if is_frozen and any(True for _ in module.buffers(recurse=False)):
            freeze_mode(module)
    return frozen_layers(model)


def unfreeze(model: nn.Module, patterns: str | Sequence[str] = "*") -> None:
    """Unfreeze layers: switch on gradients and updates of running statistics.

    The layers get the mode (training or evaluation) of the model.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(2), nn.Linear(2, 2))
        >>> _ = freeze(model, "0")
        >>> unfreeze(model, "0")
        >>> model[0].training, model[0].weight.requires_grad
        (True, True)
    """
    for module in _matched(model, patterns):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)
        unfreeze_mode(module, model.training)


def frozen_layers(model: nn.Module) -> FrozenLayers:
    """Return the currently frozen layers of a model, with a hash of the frozen tensors.

    Example:
        >>> frozen_layers(nn.Linear(2, 2)).layers
        ()
    """
    layers: dict[str, None] = {}
    numbers, digest = 0, hashlib.sha256()
    counted: set[int] = set()  # tied weights have several names, each of which counts
    for layer, name, tensor, is_parameter in _frozen_tensors(model):
        layers[layer] = None
        numbers += tensor.numel() * (is_parameter and id(tensor) not in counted)
        counted.add(id(tensor))
        title = f"{layer}.{name} {tensor.dtype} {tuple(tensor.shape)}\n"
        digest.update(title.encode())
        if tensor.is_meta:  # shapes only, without values
            continue
        plain = tensor.detach().cpu().contiguous()
        # Bytes, because NumPy has no bfloat16; a scalar must get a dimension first.
        digest.update(plain.reshape(-1).view(dtype=torch.uint8).numpy().data)
    sha256 = digest.hexdigest()
    return FrozenLayers(layers=tuple(layers), parameters=numbers, sha256=sha256)


def check_frozen(model: nn.Module, sha256: str) -> None:
    """Check that all frozen tensors still have the hash from the start of training."""
    now = frozen_layers(model)
    if now.sha256 != sha256:
        what = (
            f"frozen layers have changed: their hash was {sha256[:16]} and is now "
            f"{now.sha256[:16]}"
        )
        fix = "a frozen layer changes its own tensors; omit this layer from --freeze"
        raise WeightsError(what, where=str(now), fix=fix)


def _frozen_tensors(model: nn.Module) -> Iterator[tuple[str, str, Tensor, bool]]:
    """Yield (layer name, tensor name, tensor, is_parameter) of every frozen tensor."""
    for layer, module in named_layers(model):
        where = layer or "(the network)"
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                yield where, name, parameter, True
        if has_frozen_mode(module):
            for name, buffer in module.named_buffers(recurse=False):
                yield where, name, buffer, False


def _matched(model: nn.Module, patterns: str | Sequence[str]) -> list[nn.Module]:
    """Return the modules that match the patterns, and their submodules, each once."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    patterns = [layer_name(pattern) for pattern in patterns]
    modules = dict(named_layers(model))
    matched: dict[int, nn.Module] = {}
    for pattern in patterns:
        hits = [module for name, module in modules.items() if _matches(name, pattern)]
        if not hits:
            raise _no_match(pattern, [name for name in modules if name])
        for module in hits:
            matched |= {id(inner): inner for inner in module.modules()}
    return list(matched.values())


def _matches(name: str, pattern: str) -> bool:
    if _WILDCARDS & set(pattern):
        return bool(name) and fnmatchcase(name, pattern)
    return bool(name) and name == pattern


def _no_match(pattern: str, layers: Sequence[str]) -> UnknownNameError:
    close = closest_names(pattern.strip("*?."), layers)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    outer = [name for name in layers if "." not in name]
    rest = f", … ({len(outer)} in all)" if outer[MAX_NAMED:] else ""
    fix = f"{hint}layers: {', '.join(outer[:MAX_NAMED])}{rest}; * matches any text"
    what = f"no layer matches '{pattern}', so nothing is frozen"
    return UnknownNameError(what, where="--freeze", fix=fix)


def _last(model: nn.Module) -> str:
    last = [name for name, _ in model.named_parameters()][-1]
    return layer_name(last).rpartition(".")[0]
