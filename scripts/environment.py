"""Set up the virtual environment in steps; an interrupted set-up can be continued."""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pip_problem import problem_kind, problem_sentence
from torch_build import CPU_INDEX, SetupError, TorchBuild, choose_torch

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "requirements"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
CONFIGURED = "the indexes that pip is configured for"
ELSEWHERE = {"missing", "network", "hash", "certificate"}  # another index may do
# Every package comes as a wheel whose hash a lock names; nothing is resolved or built.
INSTALL = [
    *("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color"),
    *("--retries", "2", "install", "--progress-bar", "off", "--no-deps"),
]
HASHED = ["--require-hashes", "--only-binary", ":all:", "--requirement"]


class CommandError(Exception):
    """Error of a failed command; the error text is the command's output."""


@dataclass(frozen=True)
class Environment:
    """Virtual environment, with files that record which set-up steps are done."""

    folder: Path

    @property
    def notes(self) -> Path:
        """The folder with the logs and the keys of completed steps."""
        return self.folder / ".setup"

    @property
    def python(self) -> Path:
        """The Python interpreter of the environment."""
        windows = os.name == "nt"
        return self.folder / ("Scripts/python.exe" if windows else "bin/python")

    def stamp(self, step: str) -> str:
        """Return the key of a completed step, or an empty string."""
        file = self.notes / f"{step}.done"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def run(self, step: str, command: list[str]) -> None:
        """Run a command and write its output to the log file of the step."""
        log = self.notes / f"{step}.log"
        environ = os.environ | {"PIP_USER": "0"}
        with log.open("w", encoding="utf-8") as out:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environ
            )
        if done.returncode:
            text = log.read_text(encoding="utf-8", errors="replace")
            full = (
                shutil.disk_usage(self.notes).free < 1e7
            )  # the log had no room either
            raise CommandError(text + "\nNo space left on device" * full)

    def step(self, name: str, what: str, key: str, action: Callable[[], None]) -> None:
        """Run a step unless it was completed with the same key; print one line."""
        if self.stamp(name) == key:
            print(f"  {what}: already there", flush=True)
            return
        start = time.perf_counter()
        action()
        (self.notes / f"{name}.done").write_text(key, encoding="utf-8")
        print(f"  {what}: {time.perf_counter() - start:.0f} s", flush=True)


def set_up(environment: Environment, build: TorchBuild, extra: list[str]) -> None:
    """Create the environment, or complete an unfinished environment."""
    logs = f"{environment.folder.name}/.setup"
    print(f"Set-up of {environment.folder.name} (pip's output: {logs})", flush=True)
    if not environment.stamp("torch"):
        check_disk(environment.folder.parent, build.gigabytes)
    key = f"{sys.base_prefix} {PYTHON} {build.choice}"
    what = f"environment of Python {PYTHON}"
    environment.step("venv", what, key, lambda: make_venv(environment, build))
    dev = (LOCKS / "dev.lock").read_text(encoding="utf-8")
    with_pip = environment.notes / "pip.lock"
    with_pip.write_text(entry(dev, "pip"), encoding="utf-8")
    install_lock(environment, "pip", with_pip)
    # torch is half of the work: pip unpacks it beside the others.
    with ThreadPoolExecutor(2) as pool:
        torch = pool.submit(install_torch, environment, build)
        install_lock(environment, "packages", LOCKS / "dev.lock")
        torch.result()
    for name in extra:
        install_lock(environment, name, LOCKS / f"{name}.lock")
    install_striate(environment)


def make_venv(environment: Environment, build: TorchBuild) -> None:
    """Create an empty environment; delete an old one with another Python or torch."""
    folder = environment.folder
    ours = (folder / "pyvenv.cfg").exists() or environment.notes.exists()
    if folder.exists() and not ours and any(folder.iterdir()):
        raise SetupError(f"{folder} is no Python environment: delete or rename it.")
    shutil.rmtree(folder, ignore_errors=True)
    environment.notes.mkdir(parents=True)
    try:
        environment.run("venv", [sys.executable, "-m", "venv", str(folder)])
    except CommandError as error:
        raise sentence(error, "the environment", build=build) from None


def check_disk(folder: Path, gigabytes: float) -> None:
    """Raise an error if the disk has less free space than set-up needs."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise SetupError(
            f"Only {free:.1f} GB are free on the disk of {folder}: free "
            f"{gigabytes:g} GB, then run make setup again."
        )


def install_lock(environment: Environment, step: str, lock: Path) -> None:
    """Install the packages of a lock file from the configured package indexes."""
    text = lock.read_text(encoding="utf-8")
    what = f"{len(re.findall('^[A-Za-z].*==', text, re.MULTILINE))} packages"
    if step != "packages":
        what = step if step == "pip" else f"{what} for {step}"
    environment.step(step, what, digest(text), lambda: pip(environment, step, lock))


def install_torch(environment: Environment, build: TorchBuild) -> None:
    """Install torch from the first package index that offers the pinned build."""
    lock = LOCKS / build.lock
    text = lock.read_text(encoding="utf-8")
    what = f"torch {torch_version(text)}" + " with CUDA" * (build.choice == "cuda")

    def install() -> None:
        for index in build.indexes:
            try:
                return pip(environment, "torch", lock, index, build)
            except SetupError as error:
                if index == build.indexes[-1] or error.kind not in ELSEWHERE:
                    raise

    environment.step("torch", what, digest(text), install)


def pip(
    environment: Environment,
    step: str,
    lock: Path,
    index: str | None = None,
    build: TorchBuild | None = None,
) -> None:
    """Install the wheels of a lock file; if pip fails, raise a one-sentence error."""
    where = ["--index-url", index] if index else []
    command = [str(environment.python), *INSTALL, *where, *HASHED, str(lock)]
    try:
        environment.run(step, command)
    except CommandError as error:
        raise sentence(error, step, index, build) from None


def install_striate(environment: Environment) -> None:
    """Install this repository's striate into the environment in editable mode."""
    key = digest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    command = [str(environment.python), *INSTALL, "--no-build-isolation", "--editable"]

    def install() -> None:
        try:
            environment.run("striate", [*command, str(ROOT)])
        except CommandError as error:
            raise sentence(error, "striate") from None

    environment.step("striate", "striate", key, install)


def sentence(
    error: CommandError,
    what: str,
    index: str | None = None,
    build: TorchBuild | None = None,
) -> SetupError:
    """Convert the error of a failed command to a one-sentence error with a kind."""
    log = str(error)
    gigabytes = build.gigabytes if build else 2.5
    text = problem_sentence(
        log, what, place=index or CONFIGURED, python=PYTHON, gigabytes=gigabytes
    )
    return SetupError(text, problem_kind(log))


def entry(lock: str, name: str) -> str:
    """Return the lines of a package in a lock file: pinned version and hashes."""
    found = re.search(rf"^{name}==.*\n(?: +--hash.*\n?)+", lock, re.MULTILINE)
    assert found, f"no {name} in the lock"
    return found[0]


def torch_version(lock: str) -> str:
    """Return the version of torch that a lock file pins."""
    found = re.search(r"^torch==([^\s;]+)", lock, re.MULTILINE)
    assert found, "no torch in the lock"
    return found[1]


def digest(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def earlier_choice(environment: Environment) -> str:
    """Return the torch build of the environment, `cpu` or `cuda`; default: `cpu`."""
    return (environment.stamp("venv").split() or ["cpu"])[-1]


def main(argv: list[str] | None = None) -> int:
    """Set up the environment from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--torch", default="", help="build: cpu (default) or cuda")
    parser.add_argument("--torch-index", default="", help="index URL of the CPU build")
    parser.add_argument("--with", nargs="*", default=[], dest="extra", help="e.g. docs")
    args = parser.parse_args(argv)
    environment = Environment(args.venv.resolve())
    choice = args.torch or earlier_choice(environment)
    index = args.torch_index or CPU_INDEX
    try:
        build = choose_torch(platform.system(), platform.machine(), choice, index)
        set_up(environment, build, args.extra)
    except SetupError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, getattr(errno, "EDQUOT", 0)}
        text = problem_sentence("Errno 28", "", place="") if full else str(error)
        print(text, file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped. Run make setup again to continue.", file=sys.stderr)
    else:
        return 0
    return 1
