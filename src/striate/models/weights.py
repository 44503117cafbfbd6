"""Outside weights into the networks of the catalogue: all of a file or nothing."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from striate.core.dtypes import dtype_mismatch
from striate.core.errors import WeightsError
from striate.core.files import hash_file
from striate.models.adapt import adapted, first_kernel
from striate.models.naming import Naming, choose
from striate.models.published import by_hash
from striate.models.timm import heads_of

LISTED = 5
_HEADS = r"(head|output)\.|aux\.\w+\.fc2\."  # what the classes decide, of ours
LARGEST = 1e18  # beyond it a square leaves float32: no trained weight is there

# What training programs put a state_dict into, and what wraps a network they train.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_AS_STATE = "save the state_dict alone: torch.save(model.state_dict(), PATH)"

State = dict[str, Tensor]


def load_pretrained(
    model: nn.Module, path: str | Path, *, trust: bool = False, head: bool = True
) -> None:
    """Copy a file of weights into a network, all of it or nothing.

    Our own names and torchvision's are understood, timm's in its networks. Where the
    network's pictures have other channels, the first convolution is adapted
    (`models.adapt`). Floating-point numbers of another width become the network's.

    Args:
        model: A network of the catalogue.
        path: A `.safetensors` file, or a pickle (`.pth`); see `read`.
        trust: Read a pickle whose hash is not known.
        head: Without it the last dense layers keep their first weights, so that
            another number of classes fits.

    Raises:
        WeightsError: The file is not readable or not trusted; tensors are missing,
            left over, misshapen (the first five are listed) or not finite.
    """
    path = Path(path)
    put_pretrained(model, read(path, trust=trust), path, head=head)


def put_pretrained(
    model: nn.Module, found: State, path: Path, *, head: bool = True
) -> None:
    """Copy the tensors of a file into a network, as `load_pretrained` does.

    Raises:
        WeightsError: As `load_pretrained`, of a file that could be read.
    """
    for prefix in _PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): v for name, v in found.items()}
    naming = choose(found, model)
    if objection := naming.objection(model):
        what = f"these weights are not this network's: {objection}"
        raise WeightsError(what, where=path)
    state = {naming.rename(name, model): value for name, value in found.items()}
    wanted, heads = model.state_dict(), heads_of(model) or _HEADS
    _check_values(state, path)
    renewed = "" if head else heads
    state = _with_channels(_completed(state, wanted, naming, renewed), wanted)
    _compare(state, wanted, path, naming, heads)
    model.load_state_dict(state)


def read(path: Path, *, trust: bool = False) -> State:
    """Return the tensors of a weights file, by the names it has.

    The content decides what a file is, not its name. A pickle is opened only if it
    is a public one, known by its whole hash (`models.published`), or the caller trusts
    it, and then for tensors alone.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or a pickle that
            is neither known nor trusted.
    """
    if not path.is_file():
        raise WeightsError("there is no such file", where=path, fix="check the path")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        what = f"these weights cannot be read: {error.strerror}"
        raise WeightsError(what, where=path, fix="check who may read it") from error
    if start[8:] == b"{":
        return _read_safetensors(path)
    if start.startswith((b"PK", b"\x80")):
        return _read_pickle(path, trust)
    fix = "give a .safetensors file, or a .pth of a state_dict"
    raise WeightsError("this is not a file of weights", where=path, fix=fix)


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        what = f"the file is damaged: {error}"
        raise WeightsError(what, where=path, fix="get it again") from error


def _read_pickle(path: Path, trust: bool) -> State:
    if not trust and by_hash(digest := hash_file(path)) is None:
        what = f"a pickle can run code, and this one is not known (sha256 {digest})"
        fix = "use .safetensors, or say --trust if you know where the file is from"
        raise WeightsError(what, where=path, fix=fix)
    try:
        # The one pickle that striate reads: known or trusted, and tensors only.
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # whatever the file's author arranged for
        # Torch's own words advise to run the code that is in there.
        what = "the pickle does not hold tensors alone, or is damaged; no code ran"
        raise WeightsError(what, where=path, fix=_AS_STATE) from error
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        what = "the pickle is not a state_dict, which maps names to tensors"
        if isinstance(state, dict):
            what += f"; it holds {', '.join(map(str, list(state)[:LISTED]))}"
        raise WeightsError(what, where=path, fix=_AS_STATE)
    odd = [n for n, t in state.items() if t.layout != torch.strided or t.is_quantized]
    odd += [n for n, t in state.items() if t.is_meta]
    if odd:
        what = f"{odd[0]} is sparse, quantised or empty, and no plain tensor"
        raise WeightsError(what, where=path, fix="save it as plain numbers")
    return {str(name): value for name, value in state.items()}


def _completed(state: State, wanted: State, naming: Naming, renewed: str) -> State:
    """Drop what the network may lack, add what the file may: counters, a new head."""
    old = renewed or r"(?!)"  # of the file: perhaps a small network, with other names
    kept = {
        name: value
        for name, value in state.items()
        if name in wanted or not (re.match(naming.spare, name) or re.match(old, name))
    }
    for name, value in wanted.items():
        if name.endswith("num_batches_tracked"):  # absent from old public files
            kept.setdefault(name, value)
        if renewed and re.match(renewed, name):
            kept[name] = value
    return kept


def _with_channels(state: State, wanted: State) -> State:
    """Return the tensors with the first convolution made for the network's channels."""
    found = first_kernel(state, wanted)
    if found is None:
        return state
    name, channels = found[0], wanted[found[0]].shape[1]
    return {**state, name: adapted(state[name], channels)}


def _compare(
    state: State, wanted: State, path: Path, naming: Naming, heads: str
) -> None:
    differences = [
        line for name in wanted if (line := _difference(name, state, wanted[name]))
    ]
    extra = [name for name in state if name not in wanted]
    differences += [f"{name} is not in the network" for name in extra]
    if not differences:
        return
    listed = "\n    ".join(differences[:LISTED])
    rest = len(differences) - LISTED
    more = f"\n    and {rest} more" if rest > 0 else ""
    what = f"the weights (named by {naming.source}) do not fit:\n    {listed}{more}"
    fix = "build the network they were made for, with its classes, channels and size"
    if all(re.match(rf"{heads}|aux\.", line) for line in differences):
        fix = "build it with their number of classes, or load with head=False"
    if all(re.match(r"aux\.", line) for line in differences):
        fix = "build the network they were made for: it differs in auxiliary heads"
    raise WeightsError(f"{what}\n    nothing was loaded", where=path, fix=fix)


def _difference(name: str, state: State, wanted: Tensor) -> str:
    if name not in state:
        return f"{name} is missing"
    found = state[name]
    if found.shape != wanted.shape:
        return f"{name} is {_sides(found)}, the network's is {_sides(wanted)}"
    kind = dtype_mismatch(found.dtype, wanted.dtype, convert=True)
    return f"{name} {kind}" if kind else ""


def _sides(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "one number"


def _check_values(state: State, path: Path) -> None:
    for name, value in state.items():
        if not value.is_floating_point():
            continue  # a wrong kind is told with the other differences
        if not bool((value.float().abs() <= LARGEST).all()):
            what = f"{name} holds NaN, infinite or absurdly large numbers"
            raise WeightsError(f"{what}; nothing was loaded", where=path)
        if name.endswith("running_var") and bool((value < 0).any()):
            what = f"{name} is below 0, and no variance is; nothing was loaded"
            raise WeightsError(what, where=path)
