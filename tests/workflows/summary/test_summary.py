"""`striate summary`: every kind of target, every kind of answer, every mistake."""

import csv
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
from torch import nn

import striate as st
from striate.audit.network import ForwardError
from striate.core.errors import GeometryError, SettingError, StriateError
from striate.run.resolve_model import SummaryRequest, resolve_target

FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, depth=2, num_classes=10):
        super().__init__()
        print("built")
        layers = [nn.Conv2d(1, 1, 3, padding=1) for _ in range(depth)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))

class Peeks(Net):
    def __init__(self):
        super().__init__()
        self.rates = [rate.item() for rate in torch.ones(2) * torch.randn(2)]

class Looks(Net):
    def forward(self, x):
        return self.head(self.body(x).flatten(1)) if x.sum() >= 0 else x

class Broken(nn.Module):
    def __init__(self):
        raise KeyError("my own mistake")

def make(side=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 2))

number = 7

def refuse():
    from striate.core.errors import DataError
    raise DataError("not today")
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


def test_a_name(striate):
    said = striate("summary", "vgg16")
    assert said.code == 0
    for text in (
        "138,357,544",
        "15,470,264,320",
        "212×212",
        "features.30",
        "1 MAC = 2 FLOPs",
    ):
        assert text in said.out


def test_no_weights_are_made(striate, monkeypatch):
    """ResNet-152 would fill 240 MB; nothing above a megabyte is allocated."""
    made = []
    real = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *a, **k: made.append(out := real(*a, **k)) or out
    )
    state = torch.get_rng_state()
    assert striate("summary", "resnet152", "--json").json["totals"]["parameters"] == (
        60_192_808
    )
    assert all(t.is_meta for t in made if t.numel() > 10)
    assert torch.equal(state, torch.get_rng_state())


def test_two_sketches_side_by_side(striate):
    """The notes' bottleneck: 120,422,400 against 12,443,648, in one command."""
    start = "28x28x192 > "
    words = (start + "conv 5x5 32 same", "--against")
    thin = start + "conv 1x1 16 > conv 5x5 32 same"
    said = striate("summary", *words, thin)
    assert re.search(r"120,422,400 +12,443,648 +10\.33 %", said.out)
    data = striate("summary", *words, thin, "--json").json
    assert data["totals"]["macs"] == 120_422_400
    assert data["against"]["totals"]["macs"] == 12_443_648
    assert [row["macs"] for row in data["against"]["layers"]] == [2_408_448, 10_035_200]


def test_explain_writes_the_arithmetic(striate):
    said = striate("summary", "resnet50", "--explain", "conv1")
    assert "⌊(224 + 2·3 − 7)/2⌋ + 1" in said.out
    data = striate("summary", "resnet50", "--explain", "conv1", "--json").json
    assert data["explain"][0]["result"] == "112"
    said = striate("summary", "resnet50", "--explain", "conv")
    assert said.code == 2
    assert "no layer is called 'conv'" in said.err


def test_csv_html_and_depth(striate, tmp_path):
    table, page = tmp_path / "layers.csv", tmp_path / "page.html"
    words = ("--depth", "1", "--csv", table, "--html", page, "--against", "lenet5")
    assert striate("summary", "cifar_resnet20", *words).code == 0
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert sum(int(row["parameters"] or 0) for row in rows) > 200_000
    assert len(rows) < 12
    html = page.read_text(encoding="utf-8")
    assert "cifar_resnet20 against lenet5" in html
    assert "Side by side" in html
    assert "://" not in html.replace("http://www.w3.org", "")
    alone = tmp_path / "alone.html"
    striate("summary", "lenet5", "--html", alone, "--explain", "c1")
    assert "28×28×6" in alone.read_text(encoding="utf-8")


@pytest.mark.parametrize("size", ["64x32", "64X32", "64×32"])
def test_a_size_is_written_with_any_of_its_signs(striate, size):
    said = striate("summary", "vgg11", "--image-size", size, "--json")
    assert said.json["image"].startswith("64×32")


def test_sizes_channels_classes_and_batch(striate):
    words = ("--image-size", "64x32", "--in-chans", "1", "--num-classes", "3")
    data = striate("summary", "vgg11", *words, "--batch-size", "4", "--json").json
    assert data["image"] == "64×32×1"
    assert data["layers"][-1]["output"] == "3"
    assert "batch size 4" in data["training"]["title"]
    assert striate("summary", "vgg11", "--image-size", "64", "--json").json[
        "image"
    ] == ("64×64×3")


def test_a_file_is_run(striate, file):
    said = striate("summary", f"{file}:Net", "--image-size", "8", "--num-classes", "3")
    assert said.code == 0
    assert "8×8×1" in said.out
    words = (f"{file}:Net(depth=3)", "--image-size", "8", "--json")
    data = striate("summary", *words).json
    assert len(data["layers"]) == 5
    said = striate("summary", f"{file}:make(8)", "--image-size", "8", "--in-chans", "1")
    assert "130" in said.out
    assert "executes the file" in _help()


def _help():
    command = [sys.executable, "-m", "striate", "summary", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


def test_a_file_with_a_dataclass_of_late_annotations(tmp_path):
    """They are looked up in the module, now and when hints are asked for."""
    path = tmp_path / "late.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "@dataclass\n"
        "class Sizes:\n"
        "    classes: int = 2\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, sizes: Sizes | None = None):\n"
        "        super().__init__(4, (sizes or Sizes()).classes)\n"
        "        self.sizes = sizes or Sizes()\n"
    )
    model = resolve_target(f"{path}:Net", SummaryRequest(), real=True).model
    assert typing.get_type_hints(type(model.sizes)) == {"classes": int}
    assert "late" not in sys.modules


def test_a_constructor_that_looks_at_values_is_built_for_real(striate, file):
    assert striate("summary", f"{file}:Peeks", "--image-size", "8").code == 0


def test_a_forward_that_looks_at_values(striate, file):
    said = striate("summary", f"{file}:Looks", "--image-size", "8")
    assert said.code == 2
    assert "add --real" in said.err
    said = striate("summary", f"{file}:Looks", "--image-size", "8", "--real")
    assert said.code == 0
    assert "Training memory is unknown" in said.out


def test_a_misfit_shows_what_ran_and_the_sizes_that_fit(striate, file):
    said = striate("summary", f"{file}:Net", "--image-size", "9")
    assert said.code == 2
    assert "Layers that ran before the error" in said.out
    assert "body.1" in said.out
    assert "does not accept images of 9×9×1" in said.err
    assert "where: head" in said.err
    assert "the layer expects 64 features and got 81" in said.err
    assert "use image size 8" in said.err
    said = striate("summary", f"{file}:Net", "--in-chans", "3", "--image-size", "8")
    assert "use 1 channel (" in said.err
    said = striate("summary", f"{file}:Net", "--image-size", "9", "--json")
    assert (said.json["error"], said.json["where"]) == ("ForwardError", "head")


MISTAKES = {
    "vgg61": "did you mean vgg16",
    "nowhere": "no network is called 'nowhere'",
    "absent.py:Net": "the file does not exist",
    "net.py:Absent": "use one of its Python classes: Broken, Looks, Net, Peeks",
    "net.py:Net(": "is not the name or the call of a class",
    "net.py:Net(open('x'))": "is not the name or the call of a class",
    "net.py:a.b": "is not the name or the call of a class",
    "net.py:Broken": "KeyError: 'my own mistake'",
    "net.py:Net(9, 9, 9)": "TypeError",
    "net.py:number": "not callable",
    "net.py:str('x')": "the file does not define 'str'",
    "net.py:refuse": "not today",
    "bad.py:Net": "line 2",
    "net.py:torch.nn.ReLU": "is not the name or the call of a class",
    "net.py:dict": "the file does not define 'dict'",
    "8x8x3 > conv": "needs the number",
}


@pytest.mark.parametrize(("target", "message"), MISTAKES.items())
def test_mistakes_are_told(striate, file, target, message):
    Path("bad.py").write_text("import os\nraise RuntimeError('no')\n")
    said = striate("summary", target)
    assert said.code == 2
    assert message in said.err


def test_target_that_is_not_a_network(striate, file):
    file.write_text("def make():\n    return 3\n")
    said = striate("summary", f"{file}:make")
    assert "returned a int, not an nn.Module" in said.err


def test_settings_that_do_not_go_with_the_target(striate, shared_run):
    said = striate("summary", "8x8x3 > conv 3x3 2", "--image-size", "9")
    assert "do not apply to a sketch" in said.err
    said = striate("summary", shared_run.path, "--num-classes", "9")
    assert "do not apply to a run" in said.err
    assert (
        "is not an image size" in striate("summary", "vgg11", "--image-size", "x").err
    )
    assert "got 0" in striate("summary", "vgg11", "--batch-size", "0").err
    assert "at least 1" in striate("summary", "vgg11", "--depth", "0").err


STOPS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.child = nn.ReLU()

    def forward(self, x):
        raise ValueError
"""


def test_a_network_that_fails_at_once_shows_no_table(striate, file):
    file.write_text(STOPS)
    said = striate("summary", f"{file}:Net")
    assert (said.code, said.out) == (2, "")
    assert "ValueError" in said.err


def test_table_fits_the_terminal(striate, monkeypatch):
    from rich.console import Console

    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    said = striate("summary", "lenet5")
    assert "Hidden columns (terminal too narrow): " in said.out


def test_a_run_folder(striate, shared_run):
    data = striate("summary", shared_run.path, "--json").json
    assert data["network"] == "run"
    assert data["image"] == "8×8×1"
    real = striate("summary", shared_run.path, "--real", "--json").json
    assert real["totals"]["macs"] == data["totals"]["macs"]


def test_effective_fields_of_a_run(striate, shared_run, tmp_path):
    said = striate("summary", shared_run.path, "--effective", "digits", "--json").json
    rows = {row["layer"]: row for row in said["effective"]["rows"]}
    assert rows["conv2"]["receptive_field"] == "8×8"
    assert all(0 < row["used"] <= 1 for row in rows.values())
    page = tmp_path / "page.html"
    named = ("lenet5_modern", "--effective", "digits", "--html", page)
    text = striate("summary", *named).out
    assert "The weights are random, not trained." in text
    assert "Effective receptive fields" in page.read_text("utf-8")


def test_effective_fields_of_a_module_on_a_batch():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
    found = st.summary(model, (3, 8, 8), effective=torch.rand(2, 3, 8, 8))
    assert found.effective.rows[0][:2] == ("0", "3×3")
    assert "not trained" not in found.effective.note


def test_summary_of_any_module():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
    found = st.summary(model, (3, 8, 8))
    text = str(found)
    assert text.startswith("Sequential  8×8×3")
    assert all(len(line) <= 100 for line in text.splitlines())
    assert found.table.rows[0][0] == "0"
    assert found.explain("0").rows[0][2] == "6"
    assert st.summary(model).audit.shape == (3, 224, 224)
    assert st.summary(nn.Flatten()).audit.shape == (3, 224, 224)
    assert st.summary("lenet5", real=True).audit.memory is None
    with pytest.raises(ForwardError) as caught:
        st.summary(model, (1, 8, 8))
    assert "3 channels" in caught.value.fix
    with pytest.raises(StriateError):
        st.summary(model, (3, 8, 8), batch_size=0)


def test_a_batch_shape_is_read_as_torchinfo_reads_it():
    model = nn.Conv2d(3, 2, 3)
    assert st.summary(model, (1, 3, 8, 8)).audit.shape == (3, 8, 8)
    for wrong in ((8, 8), (0, 8, 8), (3.5, 8, 8), 7):
        with pytest.raises(SettingError, match="shape must be"):
            st.summary(model, wrong)


class TwoInputs(nn.Module):
    def forward(self, x, y, scale=1.0):
        return x + y * scale


class ListInput(nn.Module):
    def forward(self, images):
        first, second = images
        return first + second


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (TwoInputs(), r"forward\(\) takes 2 inputs \(x, y\)"),
        (ListInput(), r"forward\(\) takes a list of images, such as 2 tensors"),
    ],
)
def test_another_kind_of_input_is_named(model, said):
    with pytest.raises(GeometryError) as caught:
        st.summary(model, (3, 8, 8))
    assert re.search(said, caught.value.fix)
    assert "wrap it in a module" in caught.value.fix
