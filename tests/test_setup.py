"""Set-up chooses the right torch and says what stops it. Nothing is installed here."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import environment
from environment import Environment, entry, make_venv
from pip_problem import problem_kind, problem_sentence
from setup_env import python_problem
from torch_build import CPU_INDEX, SetupError, choose_torch

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements"


@pytest.mark.parametrize(
    ("system", "machine", "lock", "indexes"),
    [
        ("Linux", "x86_64", "torch-cpu.lock", (None, CPU_INDEX)),
        ("Linux", "aarch64", "torch-cpu.lock", (None, CPU_INDEX)),
        ("Darwin", "arm64", "torch.lock", (None,)),
        ("Windows", "AMD64", "torch.lock", (None,)),
    ],
)
def test_each_platform_gets_its_build(system, machine, lock, indexes):
    build = choose_torch(system, machine)
    assert (build.choice, build.lock, build.indexes) == ("cpu", lock, indexes)


def test_cuda_is_the_users_choice():
    assert choose_torch("Linux", "x86_64", "cuda").lock == "torch.lock"
    with pytest.raises(SetupError, match="Linux only, and this is Darwin"):
        choose_torch("Darwin", "arm64", "cuda")
    with pytest.raises(SetupError, match="TORCH=rocm is unknown"):
        choose_torch("Linux", "x86_64", "rocm")


def test_another_index_is_asked_after_pips_own():
    build = choose_torch("Linux", "x86_64", index="file:///shelf")
    assert build.indexes == (None, "file:///shelf")


@pytest.mark.parametrize(
    ("system", "machine"),
    [("FreeBSD", "amd64"), ("Darwin", "x86_64"), ("Linux", "riscv64"), ("", "")],
)
def test_an_unknown_platform_is_named(system, machine):
    with pytest.raises(SetupError, match=r"PyTorch has no build for .*use Linux"):
        choose_torch(system, machine)


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_pythons_that_set_up_takes(version):
    assert python_problem(version) == ""


@pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 15)])
def test_pythons_that_set_up_refuses(version):
    assert "3.11 to 3.14, and this one is" in python_problem(version)
    assert "PYTHON=" in python_problem(version)


LOGS = {
    "disk": "ERROR: Could not install packages due to an OSError: [Errno 28] No space "
    "left on device",
    "venv": "The virtual environment was not created successfully because ensurepip is "
    "not available.",
    "network": "WARNING: Retrying after 'NewConnectionError(...)'\n"
    "ERROR: No matching distribution found for torch==2.13.0+cpu",
    "missing": "ERROR: No matching distribution found for torch==2.13.0+cpu",
    "certificate": "SSLError(SSLCertVerificationError(CERTIFICATE_VERIFY_FAILED))\n"
    "ERROR: No matching distribution found for rich",
    "hash": "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
    "permission": "ERROR: Could not install: [Errno 13] Permission denied: '/x'",
    "other": "pip crashed\nERROR: unheard of\nNotice",
}
WAY_OUT = {
    "disk": "free 2.5 GB",
    "venv": "apt install python3.11-venv",
    "network": "No connection to https://x/cpu: check the network",
    "missing": "There is no torch==2.13.0+cpu for this system and Python 3.11 at",
    "certificate": "PIP_CERT",
    "hash": "TORCH_INDEX",
    "permission": "who owns .venv",
    "other": "ERROR: unheard of",
}


@pytest.mark.parametrize("kind", LOGS)
def test_a_failure_is_one_sentence_with_the_way_out(kind):
    assert problem_kind(LOGS[kind]) == kind
    text = problem_sentence(LOGS[kind], "torch", place="https://x/cpu")
    assert WAY_OUT[kind] in text
    assert "\n" not in text


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A set-up whose commands are recorded in place of being run."""
    place = Environment(tmp_path / "venv")
    commands: list[list[str]] = []
    answers: dict[str, str] = {}

    def run(self, step, command):
        commands.append([step, *command])
        if step in answers and answers[step] in " ".join(command):
            raise environment.CommandError(LOGS["missing"])

    monkeypatch.setattr(Environment, "run", run)
    monkeypatch.setattr(environment, "check_disk", lambda folder, gigabytes: None)

    def set_up(choice="cpu", system="Linux"):
        machine = "arm64" if system == "Darwin" else "x86_64"
        build = choose_torch(system, machine, choice, "file:///shelf")
        commands.clear()
        environment.set_up(place, build, [])
        return [words[0] for words in commands]

    set_up.answers = answers
    set_up.commands = commands
    return set_up


def test_a_second_set_up_does_nothing_again(made, capsys):
    assert sorted(made()) == ["packages", "pip", "striate", "torch", "venv"]
    assert made() == []
    assert capsys.readouterr().out.count("already there") == 5


def test_torch_comes_from_the_second_index_if_the_first_has_none(made):
    made.answers["torch"] = "--only-binary"  # every index
    with pytest.raises(SetupError, match=r"at file:///shelf"):
        made()
    tried = [words for words in made.commands if words[0] == "torch"]
    assert ["--index-url" in words for words in tried] == [False, True]
    made.answers.clear()
    assert made() == ["torch", "striate"]  # goes on from there


def test_another_torch_begins_a_new_environment(made):
    made()
    assert "venv" in made("cuda")
    assert made("cuda") == []


def test_a_folder_of_the_users_is_not_removed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SetupError, match="is no Python environment"):
        make_venv(Environment(tmp_path), choose_torch("Linux", "x86_64"))
    assert (tmp_path / "notes.txt").exists()


def test_a_full_disk_is_said_before_the_download(tmp_path):
    with pytest.raises(SetupError, match=r"Only .* GB are free"):
        environment.check_disk(tmp_path, 1e9)


def test_every_pin_of_a_lock_has_a_hash():
    for lock in LOCKS.glob("*.lock"):
        text = lock.read_text(encoding="utf-8")
        pins = re.findall(r"^[a-z0-9][^\n]*==[^\n]*\\\n +--hash=sha256:", text, re.M)
        assert len(pins) == len(re.findall(r"^\w", text, re.M)), lock.name


def test_the_cpu_path_holds_no_cuda():
    for name in ("dev.lock", "docs.lock", "torch-cpu.lock"):
        text = (LOCKS / name).read_text(encoding="utf-8")
        assert not re.search(r"^(nvidia|cuda|triton|torch==(?!.*\+cpu))", text, re.M)
    cpu = (LOCKS / "torch-cpu.lock").read_text(encoding="utf-8")
    plain = (LOCKS / "torch.lock").read_text(encoding="utf-8")
    version = environment.torch_version(plain)
    assert environment.torch_version(cpu) == f"{version}+cpu"
    assert len(re.findall("--hash", entry(cpu, "torch"))) == 8
    assert (LOCKS / "torch.in").read_text() == f"torch=={version}\n"


def test_the_lock_holds_what_torch_needs():
    """torch is installed without its dependencies, so the lock must name them."""
    text = (LOCKS / "dev.lock").read_text(encoding="utf-8")
    for line in importlib.metadata.requires("torch") or []:
        name = re.split(r"[^\w.-]", line)[0].lower()
        if "extra ==" not in line and not name.startswith(("nvidia", "cuda", "triton")):
            assert re.search(rf"^{name}==", text, re.M), name


def test_the_lock_holds_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (LOCKS / "dev.lock").read_text(encoding="utf-8")
    for line in project["project"]["dependencies"]:
        name = re.split("[>=]", line)[0]
        assert name == "torch" or re.search(rf"^{name}==", text, re.M), name
    assert len(project["project"]["dependencies"]) == 14


def test_the_script_says_it_in_one_line(tmp_path):
    """Run as make runs it, on a Python without the venv module."""
    (tmp_path / "venv.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'venv'\")"
    )
    command = [sys.executable, str(ROOT / "scripts" / "setup_env.py")]
    done = subprocess.run(
        [*command, "--venv", str(tmp_path / "new")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("This Python has no complete venv module")
    assert done.stderr.count("\n") == 1
