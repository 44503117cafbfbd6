"""Device selection, and CPU settings for denormals and garbage collection."""

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


def select_device(name: str = "auto") -> torch.device:
    """Return a torch device by name; `auto` is the first accelerator, else the CPU.

    Raises:
        SettingError: The device does not exist on this machine.

    Example:
        >>> select_device("cpu")
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


def compute_environment(device: torch.device) -> dict[str, str]:
    """Return the machine properties that change floating-point results.

    The number of threads changes the order of additions, instruction sets round
    differently, and libraries choose kernels by processor model.

    Example:
        >>> sorted(compute_environment(torch.device("cpu")))
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
def flush_denormals() -> Iterator[None]:
    """Context manager: treat denormals as zero, which is 5 to 10 times faster on CPUs.

    The setting applies to the current thread and is restored at the end.

    Example:
        >>> with flush_denormals():
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
def paused_gc() -> Iterator[None]:
    """Context manager: pause Python's garbage collector.

    The collector visits all objects of the process after every few thousand new ones.
    A process that has imported torch has half a million objects.

    Example:
        >>> with paused_gc():
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
