"""Trials on a real Ray cluster of two nodes on this machine (`make twins`)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from striate.core.errors import RunError, SettingError
from striate.workflows.lab.find_card import find_card
from striate.workflows.lab.ray_executor import RayExecutor, run_checked_trial
from striate.workflows.lab.store import ResultStore
from striate.workflows.lab.study import StudyOptions, run_study

STUDY = """\
data: digits
settings: {epochs: 2, train_images: 300, val_images: 60, test_images: 600}
changes:
  shallow: {model: 8x8x1 > conv 3x3 4 same > relu > dense 10}
  deep: {model: 8x8x1 > conv 3x3 4 same > relu > conv 3x3 4 same > relu > dense 10}
seeds: 3
"""


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "depth.yaml"
    path.write_text(STUDY)
    return find_card(str(path))


@pytest.fixture
def cluster():
    """Start two nodes with one core each, as separate processes."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def table_of(card, out, executor=None):
    options = StudyOptions(out=out, jobs=1, executor=executor)
    result = run_study(card, options)
    assert len(result.outcome.results) == 6
    return (result.folder / "results.csv").read_bytes()


@pytest.mark.slow
def test_a_cluster_gives_the_table_of_one_process(card, cluster, tmp_path):
    remote = table_of(card, tmp_path / "ray", RayExecutor(cluster.address))
    assert remote == table_of(card, tmp_path / "local")


@pytest.mark.slow
def test_a_lost_node_repeats_only_its_trial(card, cluster, tmp_path):
    class Killing(RayExecutor):
        """Kills the second node after the first result."""

        def run(self, trials):
            for number, result in enumerate(super().run(trials)):
                if number == 0:
                    cluster.remove_node(next(iter(cluster.worker_nodes)))
                yield result

    remote = table_of(card, tmp_path / "ray", Killing(cluster.address))
    assert remote == table_of(card, tmp_path / "local")


@pytest.mark.slow
def test_there_is_no_cluster_at_the_address(card, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(RunError, match="no usable Ray cluster"):
        table_of(card, tmp_path, RayExecutor("127.0.0.1:1"))


def test_ray_is_not_installed(card, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingError, match=r"striate\[ray\]"):
        table_of(card, tmp_path, RayExecutor("auto"))


def test_a_machine_with_another_version_is_named(card, tmp_path):
    trial = ResultStore(tmp_path, card, {}).trial("deep", 0)
    with pytest.raises(SettingError, match=r"a machine has striate .* 0\.0\.0"):
        run_checked_trial(trial, "0.0.0")


@pytest.mark.slow
def test_the_command_of_the_manual(tmp_path):
    """`ray start` and `striate lab run --ray-address`, as the manual shows."""
    pytest.importorskip("ray")
    ray = Path(sys.executable).with_name("ray")
    if not ray.exists():
        pytest.skip("the program ray is not beside Python")
    (tmp_path / "depth.yaml").write_text(STUDY)
    start = [str(ray), "start", "--head", "--port", "6399", "--num-cpus", "2"]
    subprocess.run(start, check=True, capture_output=True)
    try:
        command = [sys.executable, "-m", "striate", "lab", "run", "depth.yaml"]
        command += ["--ray-address", "127.0.0.1:6399", "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert '"trials": 6' in done.stdout
    finally:
        subprocess.run([str(ray), "stop", "--force"], capture_output=True)
        shutil.rmtree(tmp_path, ignore_errors=True)
