"""Convert weights between safetensors files and pickles of torch (.pth, .pt)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from striate.core.errors import SettingError, WeightsError
from striate.core.files import hash_file, refuse_existing
from striate.engine.weights_io import save_pickle, save_weights
from striate.models.weights import State, read_with_rest
from striate.run.layout import BEST, existing_run

PICKLES = (".pth", ".pt")
SAFETENSORS = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class ConvertedWeights:
    """A converted weights file: its path, hash, and number of tensors and values."""

    source: Path
    path: Path
    tensors: int  # number of tensors
    values: int  # number of values in all tensors
    sha256: str  # hash of the new file
    left_out: tuple[str, ...] = ()  # entries of the source that are not weights


def convert_weights(
    source: str | Path, out: Path, *, trust: bool = False, overwrite: bool = False
) -> ConvertedWeights:
    """Write the tensors of a weights file to a file of another format, unchanged.

    Args:
        source: A `.safetensors`, `.pth` or `.pt` file, or a run for its best weights.
        out: The file to write; its suffix gives the format.
        trust: Open a pickle that has other objects than tensors, which runs its code.
        overwrite: Replace an existing file.

    Raises:
        SettingError: The suffix of `out` is not known.
        RunError: `out` already exists, and `overwrite` is off.
        WeightsError: The source is missing, damaged or not trusted.
    """
    if out.suffix.lower() not in (SAFETENSORS, *PICKLES):
        what = f"'{out.suffix}' is not the suffix of a weights file"
        fix = f"name it {out.stem}.safetensors, {out.stem}.pth or {out.stem}.pt"
        raise SettingError(what, where=out, fix=fix)
    refuse_existing(out, overwrite)
    folder = None if Path(source).is_file() else existing_run(source)
    path = Path(source).expanduser() if folder is None else folder / BEST
    state, left_out = read_with_rest(path, trust=trust)
    if out.suffix.lower() == SAFETENSORS:
        save_weights(out, state)
    else:
        save_pickle(out, state)
    _check_equal(state, out)
    return ConvertedWeights(
        source=path,
        path=out,
        tensors=len(state),
        values=sum(tensor.numel() for tensor in state.values()),
        sha256=hash_file(out),
        left_out=left_out,
    )


def _check_equal(state: State, out: Path) -> None:
    """Read the new file, and compare all tensors bit by bit."""
    copy, _ = read_with_rest(out)
    for name, tensor in state.items():
        same = name in copy and copy[name].dtype == tensor.dtype
        if not same or not torch.equal(_bits(copy[name]), _bits(tensor)):
            what = f"the tensor {name} differs in the new file"
            raise WeightsError(what, where=out, fix="check the disk, and convert again")


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as bytes, so that NaN values compare as equal."""
    shape = torch.tensor(tensor.shape, dtype=torch.int64).view(torch.uint8)
    return torch.cat([shape, tensor.contiguous().flatten().view(torch.uint8)])
