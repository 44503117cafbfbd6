"""Choice of the torch build (CPU or CUDA) and the package index for a platform."""

from __future__ import annotations

from dataclasses import dataclass

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LINUX = {"x86_64", "amd64", "aarch64", "arm64"}


class SetupError(Exception):
    """Error of the set-up: one sentence with the reason and the solution."""

    def __init__(self, sentence: str, kind: str = "other") -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class TorchBuild:
    """Build of torch, with the lock file and the package indexes to install from.

    Attributes:
        choice: `cpu` or `cuda`.
        lock: The file in requirements/ that pins the build with hashes.
        indexes: Package indexes for pip, in this order; None: the configured indexes.
        gigabytes: Free disk space that set-up with this build needs.
    """

    choice: str
    lock: str
    indexes: tuple[str | None, ...] = (None,)
    gigabytes: float = 2.5


def choose_torch(
    system: str, machine: str, choice: str = "cpu", index: str = CPU_INDEX
) -> TorchBuild:
    """Return the torch build for `platform.system()` and `platform.machine()`.

    On Linux, PyPI has only the CUDA build, which needs several GB. The CPU build has
    the version suffix `+cpu`, so that pip never confuses the two builds.
    """
    if choice not in {"cpu", "cuda"}:
        raise SetupError(f"TORCH={choice} is unknown: use TORCH=cpu or TORCH=cuda.")
    if not has_build(system, machine.lower()):
        raise SetupError(
            f"PyTorch has no build for {system or 'this system'} on "
            f"{machine or 'this processor'}: use Linux (x86-64, aarch64), macOS 14 "
            "on Apple silicon or Windows (x86-64), or install your own torch, then run "
            "`pip install .` in the same environment."
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
    """Return whether PyTorch publishes builds for this platform."""
    machines = {"Linux": LINUX, "Darwin": {"arm64"}, "Windows": {"amd64", "x86_64"}}
    return machine in machines.get(system, set())
