"""Weights on disk: safetensors, written whole or not at all, never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.dtypes import dtype_mismatch
from striate.core.errors import WeightsError
from striate.core.files import write_bytes

MAX_LISTED = 5  # differences named before "and n more"


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors atomically.

    Raises:
        StorageError: The disk refused; the file that was there is intact.
    """
    write_bytes(path, tensors_to_bytes(tensors))


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return named tensors as the bytes of a safetensors file."""
    plain: dict[str, Tensor] = {}
    met: set[int] = set()
    for name, tensor in tensors.items():
        mine = tensor.detach().cpu().contiguous()
        # Tied weights share memory, which the format cannot say.
        shared = mine.untyped_storage().data_ptr() in met
        plain[name] = mine.clone() if shared else mine
        met.add(mine.untyped_storage().data_ptr())
    return save_tensors(plain)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named tensors; anything but safetensors is refused unread.

    Raises:
        WeightsError: The file is missing, damaged, or of another format.
    """
    try:
        return tensors_from_bytes(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise WeightsError("the weights are missing", where=path) from error
    except OSError as error:
        what = f"the weights cannot be read: {error.strerror}"
        raise WeightsError(what, where=path) from error


def tensors_from_bytes(payload: bytes, where: Path) -> dict[str, Tensor]:
    """Read the bytes of a safetensors file.

    Raises:
        WeightsError: They are damaged, or of another format.
    """
    try:
        return load_tensors(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        what = f"not a sound safetensors file: {error}"
        raise WeightsError(what, where=where, fix="restore it from a copy") from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights into a network of the same layout, or change nothing.

    Raises:
        WeightsError: Names, shapes or kinds differ; lists the first differences.
    """
    assign_weights(model, read_weights(path), path)


def assign_weights(model: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Put named tensors into a network of the same layout, or change nothing.

    Raises:
        WeightsError: Names, shapes or kinds differ; lists the first differences.
    """
    problems = state_dict_mismatches(model.state_dict(), tensors)
    if problems:
        rest = (
            f"\n  … and {len(problems) - MAX_LISTED} more"
            if problems[MAX_LISTED:]
            else ""
        )
        listed = "".join(f"\n  {problem}" for problem in problems[:MAX_LISTED])
        what = f"the weights are of another network; nothing was loaded:{listed}{rest}"
        raise WeightsError(what, where=where)
    model.load_state_dict(tensors)


def state_dict_mismatches(
    wanted: dict[str, Tensor], found: dict[str, Tensor]
) -> list[str]:
    """Say how two sets of named tensors differ, missing ones first.

    Example:
        >>> found = {"a": torch.zeros(3), "b": torch.zeros(1)}
        >>> state_dict_mismatches({"a": torch.zeros(2)}, found)
        ['a: shape 3, the network has 2', 'b: not in the network']
    """
    problems = [f"{name}: missing" for name in wanted if name not in found]
    for name, tensor in found.items():
        if name not in wanted:
            problems.append(f"{name}: not in the network")
        elif tensor.shape != wanted[name].shape:
            got, want = _shape(tensor), _shape(wanted[name])
            problems.append(f"{name}: shape {got}, the network has {want}")
        elif kind := dtype_mismatch(tensor.dtype, wanted[name].dtype):
            problems.append(f"{name}: {kind}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name}: holds NaN or infinite values")
    return problems


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


class OptimizerState:
    """An optimizer's state as named tensors, to be kept and given back.

    Its settings are not among them: the recipe and the schedule say those.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
        >>> weight.grad = torch.ones(2)
        >>> optimizer.step()
        >>> OptimizerState(optimizer).state_dict()
        {'0.momentum_buffer': tensor([1., 1.])}
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor as `<number of the parameter>.<name>`."""
        return {
            f"{number}.{key}": value
            for number, entries in self._optimizer.state_dict()["state"].items()
            for key, value in entries.items()
            if value is not None
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            WeightsError: A tensor belongs to no parameter.
        """
        groups = self._optimizer.state_dict()["param_groups"]
        parameters = [p for g in self._optimizer.param_groups for p in g["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            number, _, key = name.partition(".")
            if not number.isdecimal() or int(number) >= len(parameters):
                what = f"the optimizer's state is of another network: '{name}'"
                raise WeightsError(what)
            mine = state.setdefault(int(number), {})
            mine[key] = _laid_out_as(parameters[int(number)], tensor)
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Give a moment its parameter's order in memory, which fused kernels rely on."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device="cpu").copy_(tensor)
