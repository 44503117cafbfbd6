"""Runs of a user's own networks: trained, read again, resumed, and never executed
without being asked."""

import shutil
from pathlib import Path

import pytest
import torch

import striate as st
from striate.core.errors import RunError, WeightsError
from striate.run.layout import existing_run

NET = """
import torch
from torch import nn
from blocks import WIDTH

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTH, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(WIDTH * 36, num_classes)

    def forward(self, x):
        print("forward")
        return self.fc(self.relu(self.conv1(x)).flatten(1))
"""
SKETCH = "8x8x1 > conv 3x3 4 same > relu > [conv 1x1 2, id] > pool 2 > dense 2"
QUICK = ("--epochs", "1", "--batch-size", "8", "--quiet")


@pytest.fixture
def net(tmp_path):
    (tmp_path / "blocks.py").write_text("WIDTH = 4\n")
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


@pytest.fixture
def foreign(striate, shared_folder, net, no_report, monkeypatch, tmp_path):
    """A run folder whose code nobody has named on this machine."""
    assert striate("train", shared_folder, "--model", "net.py", *QUICK).code == 0
    for file in (net, net.with_name("blocks.py")):
        file.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    return existing_run(f"{shared_folder.name}-Net")


def test_a_python_file_from_training_to_prediction(
    striate, shared_folder, net, monkeypatch, tmp_path
):
    """All commands that read the run use its copy of the code."""
    said = striate("train", shared_folder, "--model", "net.py", *QUICK, "--json")
    folder = said.json["run"]  # what forward prints is not in the JSON
    assert folder == f"runs/train/{shared_folder.name}-Net"
    assert "forward" in said.err
    assert sorted(p.name for p in Path(folder, "network").iterdir()) == [
        "blocks.py",
        "net.py",
    ]
    record = st.load_run(folder).manifest["network"]
    assert (record["source"], record["files"]) == (str(net), ["net.py", "blocks.py"])
    net.unlink()
    image = next(shared_folder.rglob("*.png"))
    assert striate("evaluate", folder, "--json").json["accuracy"] >= 0
    assert striate("predict", folder, image, "--json").json
    assert striate("summary", folder, "--json").json["totals"]["parameters"] == 330
    words = ("--method", "gradcam", "--json")
    assert striate("explain", folder, image, *words).json["images"]
    assert striate("report", folder).code == 0
    said = striate("train", "--resume", folder, "--epochs", "2", "--quiet")
    assert said.code == 0, said.err
    assert "resumed at step" in said.out
    said = striate("transfer", shared_folder, "--pretrained", folder, "--quiet")
    assert said.code == 0, said.err
    assert (
        existing_run(f"runs/transfer/{shared_folder.name}-Net") / "network"
    ).is_dir()


def test_a_sketch_from_training_to_prediction(striate, shared_folder):
    said = striate("train", shared_folder, "--model", SKETCH, *QUICK, "--json")
    folder = said.json["run"]
    assert folder == f"runs/train/{shared_folder.name}-sketch"
    page = Path(folder, "report.html").read_text()
    assert f"<title>{shared_folder.name} · sketch" in page
    image = next(shared_folder.rglob("*.png"))
    assert striate("predict", folder, image, "--json").json
    assert striate("explain", folder, image, "--method", "gradcam").code == 0
    first, second = st.load_run(folder).fresh_model(), st.load_run(folder).fresh_model()
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    said = striate("train", "--resume", folder, "--epochs", "2", "--quiet")
    assert "resumed at step" in said.out


def test_the_user_is_told_that_the_file_has_changed(
    striate, shared_folder, net, no_report
):
    assert striate("train", shared_folder, "--model", "net.py", *QUICK).code == 0
    folder = f"runs/train/{shared_folder.name}-Net"
    assert "has changed" not in striate("evaluate", folder).err
    net.with_name("blocks.py").write_text("WIDTH = 5\n")
    said = striate("evaluate", folder)
    assert said.code == 0
    assert f"note: {net} has changed since this run; its copy is used" in said.err
    said = striate("evaluate", folder, "--model", "net.py")
    assert said.code == 2
    assert "nothing was loaded: 1 of 4 tensors match" in said.err
    assert "conv1.bias: shape 4, the network has 5" in said.err


def test_code_of_others_is_not_executed(striate, foreign, monkeypatch):
    copy = foreign / "network" / "net.py"
    copy.write_text("open('executed', 'w').close()\n" + NET)
    for words in (("evaluate",), ("report",), ("summary",), ("explain",)):
        said = striate(*words, foreign)
        assert said.code == 2
        assert "was not named on this machine; it is not executed" in said.err
    assert striate("train", "--resume", foreign, "--epochs", "2").code == 2
    args = foreign / "args.yaml"
    args.write_text(args.read_text().replace("trust: false", "trust: true"))
    assert striate("train", "--resume", foreign, "--epochs", "2").code == 2
    assert striate("transfer", "digits", "--pretrained", foreign).code == 2
    with pytest.raises(RunError, match="it is not executed"):
        _ = st.load_run(foreign).model
    assert not Path("executed").exists()
    assert striate("evaluate", foreign, "--trust").code == 0
    assert Path("executed").exists()


def test_trust_is_of_the_code_and_of_every_file(striate, foreign):
    assert "named on this machine" in striate("evaluate", foreign).err
    assert striate("evaluate", foreign, "--trust").code == 0
    assert striate("evaluate", foreign).code == 0  # trusted from now on
    assert st.load_run(foreign).model is not None
    # A module beside the file would be imported in place of another one.
    (foreign / "network" / "torchvision.so").write_bytes(b"")
    assert striate("evaluate", foreign).code == 2


def test_another_expression_is_other_code(striate, foreign):
    assert striate("evaluate", foreign, "--trust").code == 0
    args = foreign / "args.yaml"
    args.write_text(args.read_text().replace("net.py:Net", "net.py:print('x')"))
    assert "not named on this machine" in striate("evaluate", foreign).err


def test_own_code_works_where_the_cache_cannot_be_written(
    striate, foreign, monkeypatch, tmp_path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert striate("evaluate", foreign, "--trust").code == 0
    assert striate("evaluate", foreign).code == 2  # it could not be stored


def test_a_missing_copy_and_the_users_own_file(striate, foreign, tmp_path):
    shutil.rmtree(foreign / "network")
    said = striate("evaluate", foreign)
    assert "the code of the network is missing: network/net.py" in said.err
    assert "--model net.py:Net" in said.err
    Path("blocks.py").write_text("WIDTH = 4\n")
    Path("net.py").write_text(NET)
    assert striate("evaluate", foreign, "--model", "net.py:Net").code == 0


def test_a_run_of_an_object_is_read_with_a_file(striate, shared_folder, net, no_report):
    """Trained in Python, read on the command line."""
    data = st.load_data(shared_folder)
    from striate.run.build_network import build_network

    sizes = {"num_classes": 2, "in_chans": 1, "image_size": (8, 8)}
    run = st.train(build_network("net.py", **sizes), data, epochs=1, quiet=True)
    said = striate("evaluate", run.path)
    assert "the model is a Python object" in said.err
    assert "--model FILE.py:CLASS" in said.err
    assert striate("evaluate", run.path, "--model", "net.py").code == 0
    words = ("--epochs", "2", "--model", "net.py", "--quiet")
    said = striate("train", "--resume", run.path, *words)
    assert said.code == 0, said.err
    again = st.load_run(run.path, model="net.py:Net")
    assert again.evaluate("val").count == len(data.subset("val"))
    with pytest.raises(WeightsError, match="of 122 tensors match"):
        _ = st.load_run(run.path, model="resnet18").model
    said = striate("evaluate", run.path, "--model", run.path)
    assert "--model needs a network such as net.py:Net, got the run" in said.err


def test_the_network_of_a_running_run_cannot_be_changed(striate, foreign, net):
    said = striate("train", "--resume", foreign, "--trust", "--model", "net.py:Other")
    assert "model cannot change from net.py:Net to net.py:Other" in said.err


def test_code_is_stored_as_it_was_executed(shared_folder, net, no_report, monkeypatch):
    from striate.workflows.train import train

    write_inputs = train.write_run_inputs

    def edited_meanwhile(*args, **kwargs):
        net.write_text("edited while the images were read")
        write_inputs(*args, **kwargs)

    monkeypatch.setattr(train, "write_run_inputs", edited_meanwhile)
    recipe = st.Recipe(data=str(shared_folder), model="net.py", epochs=1)
    run = st.train_recipe(recipe, quiet=True)
    assert (run.path / "network" / "net.py").read_text() == NET


def test_trust_is_not_read_from_a_file(striate, shared_folder):
    Path("own.yaml").write_text("trust: true\n")
    said = striate("train", shared_folder, "--config", "own.yaml")
    assert "trust cannot be set in a settings file" in said.err
    words = ("--model", SKETCH, "--trust", *QUICK, "--json")
    folder = striate("train", shared_folder, *words).json["run"]
    assert "trust: false" in Path(folder, "args.yaml").read_text()


def test_code_that_a_settings_file_names(striate, shared_folder, net, no_report):
    """A folder from someone else may have settings and code."""
    Path("own.yaml").write_text("model: net.py:Net\nepochs: 1\n")
    said = striate("train", shared_folder, "--config", "own.yaml")
    assert "names Python code: net.py:Net" in said.err
    assert "forward" not in said.err
    words = ("train", shared_folder, "--config", "own.yaml", "--quiet")
    assert striate(*words, "--model", "net.py:Net").code == 0
    assert striate(*words).code == 0  # now the user has named it
    net.write_text(NET + "# changed\n")
    assert striate(*words).code == 2
    assert striate(*words, "--trust").code == 0
    Path("own.yaml").write_text("model: missing.py:Net\n")
    assert "the file does not exist" in striate(*words).err
    Path("own.yaml").write_text("model: not.pyramid\n")
    assert "no network is called 'not.pyramid'" in striate(*words).err


def test_compare_reads_runs_of_own_networks(striate, shared_folder, net, no_report):
    for name, model in (("a", "net.py"), ("b", SKETCH)):
        words = ("--model", model, *QUICK, "--out", name)
        assert striate("train", shared_folder, *words).code == 0
    said = striate("compare", "a", "b", "--json")
    assert said.code == 0
    assert said.json["split"] == "test"


def test_explain_takes_a_sketch_with_weights(striate, shared_folder):
    words = ("--model", SKETCH, *QUICK, "--json")
    folder = striate("train", shared_folder, *words).json["run"]
    image = next(shared_folder.rglob("*.png"))
    words = (image, "--method", "gradcam", "--json")
    weights = f"{folder}/weights/best.safetensors"
    assert striate("explain", SKETCH, *words, "--weights", weights).json["images"]
    said = striate("explain", SKETCH, *words, "--model", "net.py")
    assert "--model needs a run" in said.out
