"""Where tensors live, and the processor settings that every room relies on."""

from __future__ import annotations

import gc
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from striate.core.errors import SettingError

CPU_INFO = Path("/proc/cpuinfo")


def choose(name: str = "auto") -> torch.device:
    """Return the device asked for; `auto` is the first accelerator, else the CPU.

    Raises:
        SettingError: The device does not exist on this machine.

    Example:
        >>> choose("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return _first_accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        what = f"device '{name}' cannot be used: {reason}"
        raise SettingError(what, where="--device", fix="use auto or cpu") from error
    return device


def _first_accelerator() -> torch.device | None:
    if not torch.accelerator.is_available():
        return None
    return torch.accelerator.current_accelerator()


def circumstances(device: torch.device) -> dict[str, str]:
    """Return what of a machine decides the last bits of a result.

    Other threads add in another order, other instructions round at other places, and
    libraries choose their kernels by the processor's name.

    Example:
        >>> sorted(circumstances(torch.device("cpu")))
        ['device', 'instructions', 'processor', 'threads']
    """
    return {
        "device": device.type,
        "processor": _processor(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0] if names else platform.machine()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count denormal numbers as zero meanwhile: they slow a CPU five to ten times.

    The setting is the thread's; it is put back as it was.

    Example:
        >>> with flushed_denormals():
        ...     float(torch.tensor(1e-310, dtype=torch.float64) * 1)
        0.0
    """
    before = _flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes() -> bool:
    tiny = torch.tensor(1e-310, dtype=torch.float64)
    return not (tiny * 1).item()


@contextmanager
def paused_collection() -> Iterator[None]:
    """Do not look for garbage meanwhile: work that makes many small objects.

    Python's collector walks over every object of the process each time some thousands
    are new, and a process with torch in it has half a million.

    Example:
        >>> with paused_collection():
        ...     gc.isenabled()
        False
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
