"""Weight files in safetensors format, or on request as a pickle; written atomically."""

from __future__ import annotations

import io
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
    """Write named tensors to a safetensors file, atomically."""
    write_bytes(path, tensors_to_bytes(tensors))


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialize named tensors to the bytes of a safetensors file."""
    tensors_by_name: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        data = tensor.detach().cpu().contiguous()
        # Tied weights share memory, which the format cannot say.
        shared = data.untyped_storage().data_ptr() in storages
        tensors_by_name[name] = data.clone() if shared else data
        storages.add(data.untyped_storage().data_ptr())
    return save_tensors(tensors_by_name)


def save_pickle(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors to a file that `torch.load` reads (.pth), atomically."""
    buffer = io.BytesIO()
    state = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    torch.save(state, buffer)  # noqa: TID251 - for other programs, on request
    write_bytes(path, buffer.getvalue())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file; other formats raise an error."""
    try:
        return tensors_from_bytes(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise WeightsError("the weight file is missing", where=path) from error
    except OSError as error:
        what = f"the weight file cannot be read: {error.strerror}"
        raise WeightsError(what, where=path) from error


def tensors_from_bytes(payload: bytes, where: Path) -> dict[str, Tensor]:
    """Return the named tensors in the bytes of a safetensors file."""
    try:
        return load_tensors(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        what = f"not a valid safetensors file: {error}"
        raise WeightsError(what, where=where, fix="restore from a backup") from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a weight file into a network, see `assign_weights`."""
    assign_weights(model, read_weights(path), path)


def assign_weights(model: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Load named tensors into a network; load nothing if any tensor does not fit.

    Raises:
        WeightsError: Names, shapes or dtypes differ; lists the first differences.
    """
    problems = state_dict_mismatches(model.state_dict(), tensors)
    if problems:
        lines = problems[:MAX_LISTED]
        if problems[MAX_LISTED:]:
            lines.append(f"… and {len(problems) - MAX_LISTED} more")
        listed = "".join(f"\n  {line}" for line in lines)
        expected = model.state_dict()
        wrong = {line.partition(": ")[0] for line in problems}
        fitting = sum(name in tensors and name not in wrong for name in expected)
        what = "the weights belong to another network; nothing was loaded: "
        what += f"{fitting:,} of {len(expected):,} tensors match{listed}"
        raise WeightsError(what, where=where)
    model.load_state_dict(tensors)


def state_dict_mismatches(
    expected: dict[str, Tensor], actual: dict[str, Tensor]
) -> list[str]:
    """Return descriptions of the differences of two state dicts, missing tensors first.

    Example:
        >>> actual = {"a": torch.zeros(3), "b": torch.zeros(1)}
        >>> state_dict_mismatches({"a": torch.zeros(2)}, actual)
        ['a: shape 3, the network has 2', 'b: not in the network']
    """
    problems = [f"{name}: missing" for name in expected if name not in actual]
    for name, tensor in actual.items():
        if name not in expected:
            problems.append(f"{name}: not in the network")
        elif tensor.shape != expected[name].shape:
            shapes = f"{_shape(tensor)}, the network has {_shape(expected[name])}"
            problems.append(f"{name}: shape {shapes}")
        elif mismatch := dtype_mismatch(tensor.dtype, expected[name].dtype):
            problems.append(f"{name}: {mismatch}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name}: holds NaN or infinite values")
    return problems


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


class OptimizerState:
    """Optimizer state as named tensors, for checkpoints.

    Settings such as the learning rate are not included: recipe and schedule set them.

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
        """Return the state tensors by name, `<parameter index>.<state name>`."""
        return {
            f"{number}.{key}": value
            for number, entries in self._optimizer.state_dict()["state"].items()
            for key, value in entries.items()
            if value is not None
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load tensors that `state_dict` has returned."""
        groups = self._optimizer.state_dict()["param_groups"]
        parameters = [p for g in self._optimizer.param_groups for p in g["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            number, _, key = name.partition(".")
            if not number.isdecimal() or int(number) >= len(parameters):
                what = f"the optimizer state belongs to another network: '{name}'"
                raise WeightsError(what)
            entry = state.setdefault(int(number), {})
            entry[key] = _in_layout_of(parameters[int(number)], tensor)
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _in_layout_of(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return an optimizer state tensor in the memory layout of its parameter."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device="cpu").copy_(tensor)
