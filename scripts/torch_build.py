"""Which build of torch a platform gets, and where pip looks for it."""

from __future__ import annotations

from dataclasses import dataclass

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LINUX = {"x86_64", "amd64", "aarch64", "arm64"}


class SetupError(Exception):
    """One sentence: what cannot be installed, and the way out."""

    def __init__(self, sentence: str, kind: str = "other") -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class TorchBuild:
    """A build of torch.

    Attributes:
        choice: `cpu` or `cuda`.
        lock: The file in requirements/ that pins it with hashes.
        indexes: Where pip looks, in this order. None is what pip is configured for.
        gigabytes: Free disk space that set-up with this build needs.
    """

    choice: str
    lock: str
    indexes: tuple[str | None, ...] = (None,)
    gigabytes: float = 2.5


def choose_torch(
    system: str, machine: str, choice: str = "cpu", index: str = CPU_INDEX
) -> TorchBuild:
    """Choose the build for `platform.system()` and `platform.machine()`.

    On Linux, PyPI has only the CUDA build, of gigabytes; the CPU build has the version
    `+cpu`, so that pip never takes the one for the other.
    """
    if choice not in {"cpu", "cuda"}:
        raise SetupError(f"TORCH={choice} is unknown: use TORCH=cpu or TORCH=cuda.")
    if not has_build(system, machine.lower()):
        raise SetupError(
            f"PyTorch has no build for {system or 'this system'} on "
            f"{machine or 'this processor'}: use Linux (x86-64, aarch64), macOS 14 "
            "on Apple silicon or Windows (x86-64), or bring your own torch and run "
            "`pip install .` beside it."
        )
    if choice == "cuda" and system != "Linux":
        raise SetupError(
            f"TORCH=cuda is for Linux only, and this is {system}: run make setup, then "
            "install the build that https://pytorch.org/get-started/locally/ names."
        )
    if choice == "cuda":
        return TorchBuild("cuda", "torch.lock", gigabytes=10)
    if system == "Linux":
        return TorchBuild("cpu", "torch-cpu.lock", (None, index))
    return TorchBuild("cpu", "torch.lock")


def has_build(system: str, machine: str) -> bool:
    """Tell whether PyTorch publishes builds for this platform."""
    machines = {"Linux": LINUX, "Darwin": {"arm64"}, "Windows": {"amd64", "x86_64"}}
    return machine in machines.get(system, set())
