"""What every test shares: one thread, a folder of its own, the command line."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: two busy cores gain nothing

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, settings

from striate.cli.main import main
from striate.run import report_page as story
from striate.run import transfer_plan_findings as plan_page
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.evaluate import operating_point as detect
from striate.workflows.explain import explain
from striate.workflows.train import run_job
from striate.workflows.train.train import train_recipe
from striate.workflows.transfer import transfer
from support.forks import Forks
from support.images import snapshot, write_folder
from support.power_loss import in_memory
from support.stopped_runs import knows_stripes

torch.set_num_threads(1)
# What a shell starts in the background ignores Ctrl-C, and so does all it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No deadlines: what is slow here is another process on the same cores.
settings.register_profile(
    "striate",
    max_examples=100 if os.environ.get("ALL_EXAMPLES") else 40,  # see `make test-all`
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("striate")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # No test finds what another, or the person who runs it, has left in a cache.
    cache = tmp_path.parent / "caches" / tmp_path.name
    cache.mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(autouse=True)
def _no_charts(request, monkeypatch):
    """A run's PNG files take longer than a short run; `charts` has them drawn.

    Its page is always written, and `shared_run` has its charts.
    """
    if not request.node.get_closest_marker("charts"):
        for name in ("save_curve", "save_matrix"):
            monkeypatch.setattr(story, name, lambda block, path: None)
        monkeypatch.setattr(plan_page, "save_curve", lambda block, path: None)
        monkeypatch.setattr(explain, "save_curve", lambda block, path: None)
        monkeypatch.setattr(detect, "save_curve", lambda block, path: None)


@pytest.fixture
def no_report(monkeypatch):
    """Leave a run's report out where a test looks at what it is drawn from."""
    for room in (run_job, transfer):
        monkeypatch.setattr(room, "write_report", lambda run: None)


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def striate(capsys):
    """Run a command line in this process; a traceback fails the test by itself."""

    def call(*words) -> Said:
        capsys.readouterr()
        code = main([os.fspath(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(code, out, err)

    return call


@pytest.fixture
def refused(striate, tmp_path):
    """Run `striate train DATA …`, which must refuse and leave everything as it was."""

    def call(data, *words) -> str:
        before = snapshot(tmp_path)
        said = striate("train", data, *words)
        assert said.code == 2
        assert snapshot(tmp_path) == before
        return said.err

    return call


@pytest.fixture
def memory():
    """Return an empty place of files in memory, which stands for a cloud's."""
    place = fsspec.filesystem("memory")
    place.store.clear()
    yield place
    place.store.clear()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """Two classes of 20 gray 8×8 images; look, do not touch."""
    return write_folder(tmp_path_factory.mktemp("shared") / "stripes", count=20)


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Run:
    """A network that knows stripes: a run on three classes of them, 12×12 in color."""
    return knows_stripes(tmp_path_factory.mktemp("source"), 30, (12, 12), channels=3)


@pytest.fixture(scope="session")
def forks():
    """Processes that may be killed; see `forks.py`."""
    with in_memory() as folder, Forks(folder) as started:
        yield started


@pytest.fixture(scope="session")
def shared_run(shared_folder, tmp_path_factory) -> Run:
    """A finished run on them; look, do not touch."""
    out = tmp_path_factory.mktemp("shared-run") / "run"
    recipe = Recipe(data=str(shared_folder), epochs=4, batch_size=8)
    train_recipe(recipe, out=out, quiet=True)
    return Run(out)
