"""Writer of tensors, batch by batch, to a .safetensors or .npy file.

Both formats start with a header of shapes, which are known only at the end. So values
go to one temporary file per tensor; header and temporary files are then joined to the
result, which is renamed into place only when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import numpy as np
from torch import Tensor

from striate.core.errors import SettingError
from striate.core.files import storage_errors, write_csv
from striate.core.format import count_text

# Names of dtypes in safetensors (huggingface/safetensors, README, "Format").
_WORDS = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64"},
    **{"int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"},
}


class TensorFile:
    """Writer of a tensor file, batch by batch; `finish` creates the file.

    Args:
        path: Output file, `.safetensors`, or `.npy` for one tensor.
        names: Names of the tensors.

    Raises:
        SettingError: The file type is unknown, or a `.npy` is given several tensors.

    Example:
        >>> import tempfile, torch
        >>> place = Path(tempfile.mkdtemp()) / "rows.npy"
        >>> with TensorFile(place, ["conv"]) as file:
        ...     file.add({"conv": torch.ones(2, 3)})
        ...     file.add({"conv": torch.ones(1, 3)})
        ...     file.finish()
        {'conv': (3, 3)}
        >>> np.load(place).shape
        (3, 3)
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        if path.suffix not in (".safetensors", ".npy"):
            what = f"output must be .safetensors or .npy, not '{path.suffix}'"
            raise SettingError(what, where=path, fix="change the file name")
        if path.suffix == ".npy" and len(names) > 1:
            what = (
                f"a .npy file has only one layer, got {count_text(len(names), 'layer')}"
            )
            raise SettingError(what, where=path, fix="use .safetensors")
        self._path = path
        self._names = tuple(names)
        self._rows = dict.fromkeys(names, 0)
        self._kinds: dict[str, tuple[str, tuple[int, ...]]] = {}

    def __enter__(self) -> Self:
        with storage_errors(self._path, 0):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.mkdtemp(dir=self._path.parent, prefix=".features.")
        self._folder = Path(scratch)
        self._parts: dict[str, IO[bytes]] = {
            name: (self._folder / str(i)).open("w+b")
            for i, name in enumerate(self._names)
        }
        return self

    def __exit__(self, *error: object) -> None:
        for part in self._parts.values():
            part.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Append a batch of rows to each tensor."""
        for name in self._names:
            array = np.ascontiguousarray(rows[name].numpy())
            kind = str(array.dtype), array.shape[1:]
            if self._kinds.setdefault(name, kind) != kind:
                what = f"the shape of {name} changed from {self._kinds[name]} to {kind}"
                raise SettingError(what, where=name, fix="use images of equal size")
            self._rows[name] += len(array)
            with storage_errors(self._path, array.nbytes):
                self._parts[name].write(array.data)

    def finish(self, paths: Sequence[str] = ()) -> dict[str, tuple[int, ...]]:
        """Write the tensor file, and a .csv with the image path of each row."""
        shapes = {n: (self._rows[n], *self._kinds[n][1]) for n in self._names}
        whole = self._folder / "whole"
        size = sum(part.tell() for part in self._parts.values())
        with storage_errors(self._path, size), whole.open("wb") as file:
            npy = self._path.suffix == ".npy"
            (self._head_npy if npy else self._head_safetensors)(file, shapes)
            for part in self._parts.values():
                part.seek(0)
                shutil.copyfileobj(part, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        with storage_errors(self._path, size):
            os.replace(whole, self._path)
        if paths:
            rows = [(i, path) for i, path in enumerate(paths)]
            write_csv(self._path.with_suffix(".csv"), ("row", "image_path"), rows)
        return shapes

    def _head_npy(self, file: IO[bytes], shapes: Mapping[str, tuple[int, ...]]) -> None:
        name = self._names[0]
        descr = np.lib.format.dtype_to_descr(np.dtype(self._kinds[name][0]))
        head = {"descr": descr, "fortran_order": False, "shape": shapes[name]}
        np.lib.format.write_array_header_1_0(file, head)

    def _head_safetensors(
        self, file: IO[bytes], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        head: dict[str, object] = {"__metadata__": {"format": "pt"}}
        start = 0
        for name in self._names:
            end = start + self._parts[name].tell()
            word = _WORDS[self._kinds[name][0]]
            entry = {"dtype": word, "shape": shapes[name], "data_offsets": [start, end]}
            head[name], start = entry, end
        text = json.dumps(head, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        file.write(struct.pack("<Q", len(text)) + text)
