"""How a network is run: its layout in memory, compiled or not, in which precision."""

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

LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """One way to run a network; the default is the one that is never wrong.

    Args:
        layout: `nhwc` (channels last) or `nchw`.
        compiled: By `torch.compile`, layers fused.
        precision: `fp32`, or `bf16`: products in half precision; weights, sums, norms
            and cost stay as they are (Micikevicius et al. 2017, mixed precision).

    Example:
        >>> print(ExecutionConfig(precision="bf16"))
        nhwc bf16
    """

    layout: str = "nhwc"
    compiled: bool = False
    precision: str = "fp32"

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the layout as torch calls it."""
        return LAYOUTS[self.layout]

    def precisely(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return what must surround a forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, PRECISIONS[self.precision])

    def __str__(self) -> str:
        words = (self.layout, self.precision, "compiled" if self.compiled else "")
        return " ".join(filter(None, words))


class Forward:
    """Runs a network in a way; its answers come in float32, whatever the way.

    Args:
        model: Any network, in the memory layout of the way.
        way: How.
    """

    def __init__(self, model: nn.Module, way: ExecutionConfig) -> None:
        self.way = way
        self._run: Callable[[Tensor], Any] = (
            torch.compile(model) if way.compiled else model
        )

    def __call__(self, x: Tensor) -> Any:
        """Ask the network."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=self.way.memory_format)
        with self.way.precisely(x.device):
            answer = self._run(x)
        return answer if self.way.precision == "fp32" else _in_float(answer)


def _in_float(answer: Any) -> Any:
    if isinstance(answer, HeadOutputs):
        lower = tuple(logits.float() for logits in answer.auxiliary)
        return answer._replace(logits=answer.logits.float(), auxiliary=lower)
    return answer.float()


def match_layout(x: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient in the layout of x; torch's kernels for mixed ones are slow."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return gradient.contiguous(memory_format=LAYOUTS["nhwc" if last else "nchw"])


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that would be slow, with the reason.

    Raises:
        SettingError: The device has no instructions for it.
    """
    if precision == "bf16" and (reason := bf16_obstacle(device)):
        fix = "use --precision fp32, or auto, which takes what is faster here"
        raise SettingError(f"bf16 loses here: {reason}", where="--precision", fix=fix)


def bf16_obstacle(device: torch.device) -> str:
    """Say why half precision would lose on a device; empty if it might gain."""
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        return "" if able else "this GPU has no bf16 units (Ampere is the first with)"
    if device.type != "cpu":
        return f"it was never measured on {device.type}"
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        return "the processor's vector instructions are switched off"
    if _has_bf16():
        return ""
    return (
        "this processor has no bf16 instructions (AVX-512-BF16, AMX or ARM's BF16); "
        "emulated, a step takes tens to hundreds of times as long"
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
    """Say whether there is a C++ compiler, which `torch.compile` needs on a CPU."""
    return any(map(shutil.which, COMPILERS))
