"""Build the wheel and the source archive; test the wheel in a new environment.

The wheel is installed into an empty environment with links to the torch of the current
environment. Torch must not change. Then `striate train digits` runs in the new
environment, and with --tests also the given tests.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
MOST_PACKAGES = 35


def main(argv: list[str] | None = None) -> int:
    """Build the archives, check their contents, install the wheel, and run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", nargs="*", default=[], help="additional test files")
    tests = parser.parse_args(argv).tests
    wheel, archive = build()
    check_contents(wheel, archive)
    with tempfile.TemporaryDirectory(prefix="striate-dist-") as folder:
        python = install(wheel, Path(folder))
        check_packages(python)
        run([python, "-m", "striate", "train", "digits", "--quiet"], Path(folder))
        print("striate train digits: works", flush=True)
        if tests:
            run_tests(python, tests)
    return 0


def run(command: list[str | Path], folder: Path = ROOT) -> str:
    """Run a command without PYTHONPATH; if the command fails, exit with its output."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build() -> tuple[Path, Path]:
    """Build the wheel and the source archive, and return their paths."""
    shutil.rmtree(DIST, ignore_errors=True)
    run([sys.executable, "-m", "hatchling", "build"])
    return next(DIST.glob("*.whl")), next(DIST.glob("*.tar.gz"))


def sources() -> set[str]:
    """Return the paths of all files of the package, including data files."""
    files = (ROOT / "src").rglob("*")
    kept = (path for path in files if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT / "src").as_posix() for path in kept}


def check_contents(wheel: Path, archive: Path) -> None:
    """Check that the wheel and the source archive contain all files of the package."""
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if ".dist-info/" not in name}
    if packed != sources():
        sys.exit(f"{wheel.name} differs: {sorted(packed ^ sources())}")
    with tarfile.open(archive) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    needed = {f"src/{name}" for name in sources()}
    needed |= {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"}
    if needed - inside:
        sys.exit(f"{archive.name} lacks {sorted(needed - inside)}")
    for path in (wheel, archive):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, complete", flush=True)


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel into a new environment, and return its Python interpreter."""
    run([sys.executable, "-m", "venv", folder / "env"])
    windows = os.name == "nt"
    python = folder / "env" / ("Scripts/python.exe" if windows else "bin/python")
    site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here = Path(run([python, "-c", site]).strip())
    link_torch(here)
    before = torch_state(here)
    run([python, "-m", "pip", "install", "--quiet", wheel], folder)
    if torch_state(here) != before:
        sys.exit("installing the wheel changed torch")
    return python


def link_torch(site: Path) -> None:
    """Link the torch of the current environment into another environment."""
    torch = importlib.metadata.distribution("torch")
    tops = {file.parts[0] for file in torch.files or [] if file.parts[0] != ".."}
    for name in tops - {"__pycache__"}:
        source = Path(str(torch.locate_file(name)))
        if os.name != "nt":
            (site / name).symlink_to(source)
        elif source.is_dir():
            shutil.copytree(source, site / name)


def torch_state(site: Path) -> list[tuple[str, str]]:
    """Return the path and the link target of each torch entry in site-packages."""
    return [(str(path), str(path.resolve())) for path in sorted(site.glob("torch*"))]


def check_packages(python: Path) -> None:
    """Check that there are not too many runtime packages, and no CUDA packages."""
    text = run([python, "-m", "pip", "list", "--format", "json"])
    names = {package["name"] for package in json.loads(text)}
    names -= {"pip", "striate"}
    cuda = sorted(
        name for name in names if name.startswith(("nvidia", "cuda", "triton"))
    )
    if cuda or len(names) > MOST_PACKAGES:
        sys.exit(f"{len(names)} packages, at most {MOST_PACKAGES}; CUDA: {cuda}")
    print(
        f"{len(names)} packages beside striate (torch is one), none of CUDA", flush=True
    )


def run_tests(python: Path, tests: list[str]) -> None:
    """Run tests of this repository against the installed wheel."""
    where = "import striate; print(striate.__file__)"
    if "site-packages" not in run([python, "-c", where], python.parent):
        sys.exit("the tests would not run against the wheel")
    lock = ROOT / "requirements" / "dev.lock"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    run([*pip, "--requirement", lock])
    print(
        run([python, "-m", "pytest", "-q", "-m", "not slow", *tests]).splitlines()[-1]
    )


if __name__ == "__main__":
    sys.exit(main())
