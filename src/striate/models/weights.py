"""Load weight files into a network, either completely or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - only the error of torch.load
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from striate.core.dtypes import dtype_mismatch
from striate.core.errors import WeightsError
from striate.models.adapt_first_conv import adapted, first_kernel
from striate.models.head import AUXILIARY
from striate.models.key_mapping import (
    classifier_pattern,
    has_stride_in_1x1,
    without_prefixes,
)

LISTED = 5
LARGEST = 1e18  # the square of a larger number overflows float32

# Keys under which training programs save a state_dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_AS_STATE = "save the state_dict alone: torch.save(model.state_dict(), PATH)"

State = dict[str, Tensor]


def load_pretrained(
    model: nn.Module, path: str | Path, *, trust: bool = False, head: bool = True
) -> None:
    """Load a file of weights into a network, either completely or not at all.

    Networks of the catalogue have torchvision's layer names, networks of timm have
    timm's. For another number of input channels, the first convolution is adapted
    (`models.adapt`). Floating-point tensors are converted to the network's dtype.

    Args:
        model: A network of the catalogue.
        path: A `.safetensors` file, or a pickle (`.pth`); see `read`.
        trust: Whether to open a pickle that has other objects than tensors. This runs
            code in the file.
        head: If False, the classifiers keep their initial weights, so that another
            number of classes is possible.

    Raises:
        WeightsError: The file is not readable or not trusted; tensors are missing,
            unknown, of another shape (the message lists five) or not finite.
    """
    path = Path(path)
    put_pretrained(model, read(path, trust=trust), path, head=head)


def put_pretrained(
    model: nn.Module,
    tensors: State,  # the file's tensors by name
    path: Path,  # the file, for messages
    *,
    head: bool = True,  # as for `load_pretrained`
    # Whether the weights are known to be of the same network.
    same_network: bool = False,
) -> None:
    """Load the tensors of a weight file into a network; see `load_pretrained`.

    Raises:
        WeightsError: Tensors are missing, unknown, of another shape or not finite.
    """
    if not same_network and has_stride_in_1x1(model):
        what = "it is unknown whether these weights were trained with this stride"
        fix = "public weights have the stride in the 3×3: build resnet…_v1_5; "
        fix += "load your own weights with model.load_state_dict"
        raise WeightsError(what, where=path, fix=fix)
    state, target = without_prefixes(tensors), model.state_dict()
    _check_values(state, path)
    classifiers = classifier_pattern(model)
    state = _completed(state, target, r"(?!)" if head else classifiers)
    state = _with_channels(state, target)
    _compare(state, target, path, classifiers)
    model.load_state_dict(state)


def read(path: Path, *, trust: bool = False) -> State:
    """Return the tensors of a weight file by name; see `read_with_rest`."""
    return read_with_rest(path, trust=trust)[0]


def read_with_rest(path: Path, *, trust: bool = False) -> tuple[State, tuple[str, ...]]:
    """Return the tensors of a weight file by name, and the names of other entries.

    The format is detected from the file's content, not from its name. Of a pickle
    (`.pth`, `.pt`), only tensors are read, and no code is run. A pickle with other
    objects is opened only if the caller trusts the file; then its code is run.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or a pickle with
            other objects that is not trusted.
    """
    if not path.is_file():
        raise WeightsError("there is no such file", where=path, fix="check the path")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        what = f"these weights cannot be read: {error.strerror}"
        raise WeightsError(what, where=path, fix="check its permissions") from error
    if start[8:] == b"{":
        return _read_safetensors(path), ()
    if start.startswith((b"PK", b"\x80")):
        return _read_pickle(path, trust)
    fix = "give a .safetensors file, or a .pth of a state_dict"
    raise WeightsError("this is not a file of weights", where=path, fix=fix)


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        what = f"the file is damaged: {error}"
        raise WeightsError(what, where=path, fix="download or copy it again") from error


def _read_pickle(path: Path, trust: bool) -> tuple[State, tuple[str, ...]]:
    """Return the tensors of a pickle; without `trust`, none of its code is run."""
    state = _load_tensors_only(path, trust)
    if isinstance(state, nn.Module):
        state = state.state_dict()
    left_out: tuple[str, ...] = ()
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            left_out += tuple(str(key) for key in state if key != wrapper)
            state = state[wrapper]
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        what = "the pickle is not a state_dict, which maps names to tensors"
        if isinstance(state, dict):
            what += f"; its keys are {', '.join(map(str, list(state)[:LISTED]))}"
        raise WeightsError(what, where=path, fix=_AS_STATE)
    odd = [n for n, t in state.items() if t.layout != torch.strided or t.is_quantized]
    odd += [n for n, t in state.items() if t.is_meta]
    if odd:
        what = f"{odd[0]} is sparse, quantized or without values, not a dense tensor"
        raise WeightsError(what, where=path, fix="save it as a dense tensor")
    return {str(name): value for name, value in state.items()}, left_out


def _load_tensors_only(path: Path, trust: bool) -> Any:
    """Unpickle a file that has only tensors; other files only with `trust`."""
    try:
        return _unpickle(path, weights_only=True)
    except UnpicklingError as error:
        if not trust:
            # Torch's own message advises to run the code in the file.
            match = re.search(r"GLOBAL ([\w.]+)", str(error))
            name = f", such as {match[1]}" if match else ""
            what = f"the pickle is damaged or has other objects than tensors{name}"
            fix = f"{_AS_STATE}; or, only if you trust the source of the file, add "
            fix += "--trust: then code in the file is run"
            raise WeightsError(f"{what}; no code ran", where=path, fix=fix) from error
    except Exception as error:  # a malicious file may raise anything
        what = "the pickle is damaged; no code ran"
        fix = "download or copy it again"
        raise WeightsError(what, where=path, fix=fix) from error
    try:
        return _unpickle(path, weights_only=False)  # trusted: its code may run
    except Exception as error:  # foreign code may raise anything
        text = str(error).partition("\n")[0]
        what = f"the pickle cannot be opened: {type(error).__name__}: {text}"
        raise WeightsError(what, where=path, fix=_AS_STATE) from error


def _unpickle(path: Path, *, weights_only: bool) -> Any:
    # A file object, because torch chooses the format of a path by its suffix.
    with path.open("rb") as file:
        return torch.load(  # noqa: TID251 - the one pickle that striate reads
            file, map_location="cpu", weights_only=weights_only
        )


def _completed(state: State, target: State, renewed: str) -> State:
    """Drop surplus tensors of a file; take `renewed` tensors from the network.

    Tensors whose names match `renewed` keep their initial values.
    """
    # The file's classifier may have more layers than the network's classifier.
    spare = rf"{AUXILIARY}|{renewed}"
    known = [name for name in state if name in target or not re.match(spare, name)]
    completed = {name: state[name] for name in known}
    for name, value in target.items():
        if name.endswith("num_batches_tracked"):  # absent from old public files
            completed.setdefault(name, value)
        if re.match(renewed, name):
            completed[name] = value
    return completed


def _with_channels(state: State, target: State) -> State:
    """Return the tensors with the first convolution adapted to the input channels."""
    first = first_kernel(state, target)
    if first is None:
        return state
    name, _ = first
    return {**state, name: adapted(state[name], target[name].shape[1])}


def _compare(state: State, target: State, path: Path, classifiers: str) -> None:
    differences = [
        line for name in target if (line := _difference(name, state, target[name]))
    ]
    extra = [name for name in state if name not in target]
    differences += [f"{name} is not in the network" for name in extra]
    if not differences:
        return
    listed = "\n    ".join(differences[:LISTED])
    rest = len(differences) - LISTED
    more = f"\n    and {rest} more" if rest > 0 else ""
    wrong = {line.partition(" ")[0] for line in differences}
    fitting = sum(name in state and name not in wrong for name in target)
    what = f"the weights do not fit the network: {fitting:,} of {len(target):,} tensors"
    what += f" match\n    {listed}{more}"
    what += "\n    nothing was loaded"
    fix = "build the network of these weights, with equal classes, channels and size"
    if all(re.match(rf"{classifiers}|{AUXILIARY}", line) for line in differences):
        fix = "build the network with the file's classes, or load with head=False"
    if all(re.match(AUXILIARY, line) for line in differences):
        fix = "create the network with the same auxiliary heads as the weight file"
    raise WeightsError(what, where=path, fix=fix)


def _difference(name: str, state: State, target: Tensor) -> str:
    if name not in state:
        return f"{name} is missing"
    tensor = state[name]
    if tensor.shape != target.shape:
        return f"{name} is {_sides(tensor)}, in the network {_sides(target)}"
    dtype = dtype_mismatch(tensor.dtype, target.dtype, convert=True)
    return f"{name} {dtype}" if dtype else ""


def _sides(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a scalar"


def _check_values(state: State, path: Path) -> None:
    for name, value in state.items():
        if not value.is_floating_point():
            continue  # a wrong dtype is reported with the other differences
        if not bool((value.float().abs() <= LARGEST).all()):
            what = f"{name} holds NaN, infinite or extremely large numbers"
            raise WeightsError(f"{what}; nothing was loaded", where=path)
        if name.endswith("running_var") and bool((value < 0).any()):
            what = f"{name} is negative, but it is a variance; nothing was loaded"
            raise WeightsError(what, where=path)
