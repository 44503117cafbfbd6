"""Weights on disk: safetensors and JSON, written whole or not at all, never pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.errors import WeightsError
from striate.core.files import write_bytes, write_json
from striate.engine.loop import EpochDone, StepDone

LISTED = 5  # differences named before "and n more"


def save_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors atomically.

    Raises:
        StorageError: The disk refused; the file that was there is intact.
    """
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_bytes(path, save_tensors(plain))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named tensors; anything but safetensors is refused unread.

    Raises:
        WeightsError: The file is missing, damaged, or of another format.
    """
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError as error:
        raise WeightsError("the weights are missing", where=path) from error
    except OSError as error:
        what = f"the weights cannot be read: {error.strerror}"
        raise WeightsError(what, where=path) from error
    except (SafetensorError, ValueError, KeyError) as error:
        what = f"not a sound safetensors file: {error}"
        raise WeightsError(what, where=path, fix="restore it from a copy") from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights into a network of the same layout, or change nothing.

    Raises:
        WeightsError: Names or shapes differ; lists the first differences.
    """
    tensors = read_weights(path)
    problems = differences(model.state_dict(), tensors)
    if problems:
        rest = f"\n  … and {len(problems) - LISTED} more" if problems[LISTED:] else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:LISTED])
        what = f"the weights are of another network; nothing was loaded:{listed}{rest}"
        raise WeightsError(what, where=path)
    model.load_state_dict(tensors)


def differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """Say how two sets of named tensors differ, missing ones first.

    Example:
        >>> found = {"a": torch.zeros(3), "b": torch.zeros(1)}
        >>> differences({"a": torch.zeros(2)}, found)
        ['a: shape 3, the network has 2', 'b: not in the network']
    """
    problems = [f"{name}: missing" for name in wanted if name not in found]
    for name, tensor in found.items():
        if name not in wanted:
            problems.append(f"{name}: not in the network")
        elif tensor.shape != wanted[name].shape:
            got, want = _shape(tensor), _shape(wanted[name])
            problems.append(f"{name}: shape {got}, the network has {want}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name}: holds NaN or infinite values")
    return problems


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


class Keeper:
    """Keeps the best weights, and the last with everything needed to go on.

    Writes `weights/best.safetensors` after an epoch that is best so far, and
    `weights/last/` (model, optimiser, position) after every epoch.
    """

    def __init__(self, folder: Path, model: nn.Module, optimizer: Optimizer) -> None:
        self.folder = folder
        self.model = model
        self.optimizer = optimizer
        self.position: dict[str, Any] = {"epochs_done": 0, "steps_done": 0}

    def on_step(self, done: StepDone) -> None:
        """Note how far the run is."""
        self.position["steps_done"] = done.step + 1

    def on_epoch(self, done: EpochDone) -> None:
        """Save what an epoch made."""
        self.position["epochs_done"] = done.epoch + 1
        if done.best:
            save_weights(self.folder / "best.safetensors", self.model.state_dict())
        self.save_last()

    def save_last(self) -> None:
        """Save the full state: model, optimiser, and how far the run is."""
        last = self.folder / "last"
        save_weights(last / "model.safetensors", self.model.state_dict())
        tensors, settings = _flatten(self.optimizer)
        save_weights(last / "optimizer.safetensors", tensors)
        write_json(last / "state.json", {**self.position, "optimizer": settings})


def _flatten(optimizer: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Part an optimiser's state into named tensors and JSON settings."""
    state = optimizer.state_dict()
    tensors = {
        f"{number}.{key}": torch.as_tensor(value)
        for number, entries in state["state"].items()
        for key, value in entries.items()
        if value is not None
    }
    return tensors, state["param_groups"]
