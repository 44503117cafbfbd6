"""Inputs and outputs of exported files, and checks of what is passed to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from striate.core.errors import GeometryError, StriateError
from striate.core.registry import unknown_name_error


@dataclass(frozen=True, kw_only=True)
class TensorPort:
    """An input or output: its name, its type, and its shape (None: any size)."""

    name: str
    dtype: type[np.generic] | None  # None: a type that NumPy does not have
    shape: tuple[int | None, ...]

    def fits(self, array: np.ndarray) -> bool:
        """Return whether an array has this type and shape.

        Example:
            >>> port = TensorPort(name="x", dtype=np.uint8, shape=(None, 3))
            >>> port.fits(np.zeros((5, 3), np.uint8)), port.fits(np.zeros((5, 3)))
            (True, False)
        """
        return (
            array.dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(
                size in (None, real)
                for size, real in zip(self.shape, array.shape, strict=True)
            )
            and array.size > 0
        )


def check_batch(array: np.ndarray, inputs: Sequence[TensorPort], where: str) -> None:
    """Raise an error if a batch does not fit the only input.

    Raises:
        GeometryError: The file has several inputs, or type or shape is another one.
    """
    if len(inputs) != 1:
        names = ", ".join(port.name for port in inputs)
        what = f"the file has {len(inputs)} inputs ({names}); striate passes one"
        raise GeometryError(what, where=where)
    port = inputs[0]
    if not port.fits(array):
        sizes = "×".join("any" if size is None else str(size) for size in port.shape)
        given = "×".join(map(str, array.shape))
        dtype = np.dtype(port.dtype).name if port.dtype else "another type"
        what = f"input {port.name} takes {sizes} {dtype}, got {given} {array.dtype}"
        raise GeometryError(what, where=where, fix="convert the array, or the images")


def named_outputs(
    ports: Sequence[TensorPort], names: Sequence[str] | None, where: str
) -> tuple[str, ...]:
    """Return the names of the outputs to compute: those given, or all.

    Raises:
        UnknownNameError: There is no output of this name.
    """
    known = tuple(port.name for port in ports)
    for name in names or ():
        if name not in known:
            raise unknown_name_error(f"output of {where}", name, known)
    return known if names is None else tuple(names)


@contextmanager
def runtime_errors(runtime: str, action: str, where: str) -> Iterator[None]:
    """Convert any error of a runtime to a StriateError with its first line."""
    try:
        yield
    except StriateError:
        raise
    except Exception as error:  # the runtimes have no common class of errors
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0] if lines else type(error).__name__
        what = f"{runtime} cannot {action} the file: {text}"
        fix = "export the network again, and compare it with --verify"
        raise StriateError(what, where=where, fix=fix) from error
