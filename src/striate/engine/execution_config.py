"""Execution mode of a network: memory layout, precision and `torch.compile`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from striate.core.aux_heads import HeadOutputs
from striate.core.device import CPU_INFO
from striate.core.errors import SettingError
from striate.core.logits import main_output

LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """Execution mode of a network; the default works on every device.

    Example:
        >>> print(ExecutionConfig(precision="bf16"))
        nhwc bf16
    """

    layout: str = "nhwc"  # `nhwc` (channels last) or `nchw`
    compiled: bool = False  # use `torch.compile`
    # `fp32`, or `bf16` for mixed precision: convolutions and products in bf16; weights,
    # sums, norms and loss in fp32 (Micikevicius et al. 2017).
    precision: str = "fp32"

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the memory layout as a `torch.memory_format`."""
        return LAYOUTS[self.layout]

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the autocast context manager for a forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, PRECISIONS[self.precision])

    def __str__(self) -> str:
        parts = (self.layout, self.precision, "compiled" if self.compiled else "")
        return " ".join(filter(None, parts))


class Forward:
    """Callable that runs a network in an execution mode and returns float32 outputs.

    The network must already be in the memory layout of the mode.
    """

    def __init__(self, model: nn.Module, execution: ExecutionConfig) -> None:
        self.execution = execution
        self._run: Callable[[Tensor], Any] = (
            torch.compile(model) if execution.compiled else model
        )

    def __call__(self, x: Tensor) -> Any:
        """Run the network on a batch and return float32 outputs."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=self.execution.memory_format)
        with self.execution.autocast(x.device):
            output = self._run(x)
        return output if self.execution.precision == "fp32" else _in_float(output)


def _in_float(output: Any) -> Any:
    if isinstance(output, HeadOutputs):
        auxiliary = tuple(logits.float() for logits in output.auxiliary)
        return output._replace(logits=output.logits.float(), auxiliary=auxiliary)
    return main_output(output).float()


def match_layout(x: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient in the memory layout of x: torch is slow for mixed layouts."""
    channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    layout = "nhwc" if channels_last else "nchw"
    return gradient.contiguous(memory_format=LAYOUTS[layout])


def check_precision(precision: str, device: torch.device) -> None:
    """Raise an error if a precision would be slow on a device."""
    if precision == "bf16" and (reason := bf16_obstacle(device)):
        fix = "use --precision fp32, or --precision auto to choose the faster one"
        raise SettingError(f"bf16 is unusable: {reason}", where="--precision", fix=fix)


def bf16_obstacle(device: torch.device) -> str:
    """Return the reason why bf16 would be slow on a device; '' if it may be fast."""
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return "" if supported else "this GPU has no bf16 units (needs Ampere or newer)"
    if device.type != "cpu":
        return f"the speed of bf16 was never measured on {device.type}"
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        return "the vector instructions of this CPU are switched off for torch"
    if _has_bf16():
        return ""
    return (
        "this processor has no bf16 instructions (AVX-512-BF16, AMX or ARM's BF16); "
        "with emulated bf16, a step takes tens to hundreds of times as long"
    )


def _has_bf16() -> bool:
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return False
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    names = {"avx512_bf16", "amx_bf16", "bf16"}
    return flags is not None and not names.isdisjoint(flags[1].split())


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which `torch.compile` needs on a CPU."""
    return any(map(shutil.which, COMPILERS))
