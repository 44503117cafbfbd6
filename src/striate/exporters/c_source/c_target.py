"""C source compiled with the compiler of the system, for a comparison with the run."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from striate.core.errors import StriateError
from striate.core.preprocess_config import Preprocess
from striate.exporters.c_source.c_text import c_identifier

DEFAULT_FLAGS = ("-O2",)


def c_compiler() -> str:
    """Return the path of the system's C compiler.

    Raises:
        StriateError: There is none.
    """
    for program in ("cc", "gcc", "clang"):
        path = shutil.which(program)
        if path:
            return path
    what = "checking C source needs a C compiler, and this machine has none (cc)"
    fix = "install gcc or clang; on Debian and Ubuntu: apt install gcc libc6-dev"
    raise StriateError(what, where="export", fix=fix)


class CTarget:
    """Compiled C source with the values of its stages.

    Args:
        files: Result of `write_c`.
        preprocess: The size of the network's input.
        input_kind: `image` or `tensor`.
        flags: Options for the compiler.

    Raises:
        StriateError: There is no C compiler, or the source does not compile.
    """

    normalize_tolerance = 0.0

    def __init__(
        self,
        files: Mapping[str, bytes],
        preprocess: Preprocess,
        *,
        input_kind: str = "image",
        flags: Sequence[str] = DEFAULT_FLAGS,
    ) -> None:
        self.input_kind = input_kind
        self._preprocess = preprocess
        stem = next(Path(key).stem for key in files if key.endswith(".c"))
        self._prefix = c_identifier(stem)
        self._library = _compiled(files, stem, flags)
        self._weights: list[ctypes.Array[ctypes.c_char]] = []
        for key, payload in files.items():
            if key.endswith(".weights"):
                self._weights = [ctypes.create_string_buffer(payload, len(payload))]
                self._call("check_weights", ctypes.c_size_t(len(payload)))
        self.classes = self._class_names(files)

    def _class_names(self, files: Mapping[str, bytes]) -> tuple[str, ...]:
        header = next(v for k, v in files.items() if k.endswith(".h")).decode()
        word = f"#define {self._prefix.upper()}_CLASSES "
        count = int(header.partition(word)[2].split()[0])
        names = (ctypes.c_char_p * count).in_dll(
            self._library, f"{self._prefix}_class_names"
        )
        return tuple((name or b"").decode("utf-8", "surrogatepass") for name in names)

    def _call(self, function: str, *arguments: object) -> None:
        weights = [] if function == "resize" else self._weights
        code = getattr(self._library, f"{self._prefix}_{function}")(
            *weights, *arguments
        )
        if code:
            what = f"the function {self._prefix}_{function} returned {code}"
            raise StriateError(what, where="export")

    def run(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the values of all stages, image by image."""
        run_image = self._run_tensor if self.input_kind == "tensor" else self._run_image
        rows = [run_image(np.ascontiguousarray(item)) for item in batch]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def _run_image(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        count, p = len(self.classes), self._preprocess
        if pixels.shape[-1] != p.channels or pixels.dtype != np.uint8:
            what = f"images must be uint8, channels last; channels: {p.channels}"
            raise StriateError(what, where="export")
        resized = np.empty(p.shape, np.uint8)
        logits, probs = np.empty(count, np.float32), np.empty(count, np.float32)
        outputs: dict[str, np.ndarray] = {}
        outputs |= {"resize": resized, "logits": logits, "predict": probs}
        for function, output in outputs.items():
            sides = map(ctypes.c_int, pixels.shape[:2])
            self._call(function, _pointer(pixels), *sides, _pointer(output))
        return {"resized": resized, "logits": logits, "probabilities": probs}

    def _run_tensor(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        tensor = np.ascontiguousarray(tensor, np.float32)
        count = len(self.classes)
        logits, probs = np.empty(count, np.float32), np.empty(count, np.float32)
        arrays = [_pointer(array) for array in (tensor, logits, probs)]
        self._call("predict_tensor", *arrays)
        return {"logits": logits, "probabilities": probs}

    def run_layers(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return no layers: their memory is used again."""
        return {}


def _pointer(values: np.ndarray) -> ctypes.c_void_p:
    return values.ctypes.data_as(ctypes.c_void_p)


def _compiled(
    files: Mapping[str, bytes], stem: str, flags: Sequence[str]
) -> ctypes.CDLL:
    compiler = c_compiler()
    with tempfile.TemporaryDirectory() as folder:
        for key, payload in files.items():
            if not key.endswith(".weights"):
                Path(folder, key).write_bytes(payload)
        library = Path(folder, "library.so")
        command = [compiler, "-std=c99", *flags, "-shared", "-fPIC"]
        command += ["-o", str(library), f"./{stem}.c", "-lm"]
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            errors = [line for line in lines if "error" in line] or lines
            what = f"the C compiler failed: {errors[0]}"
            fix = f"try another compiler than {Path(compiler).name}"
            raise StriateError(what, where="export", fix=fix)
        return ctypes.CDLL(str(library))
