"""A user's own network in a Python file: what is chosen, passed, restored, refused."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from striate.core.errors import SettingError
from striate.core.files import read_json
from striate.run.build_network import build_network, outputs_fix, resolve_network
from striate.run.python_network import load_python_network, local_imports
from striate.run.recipe import Recipe

NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes=10, in_channels=1, width=4):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.head = nn.Linear(width, num_classes)
    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))
"""
SIZES = {"num_classes": 3, "in_chans": 2, "image_size": (8, 8)}


def build(name, seed=0):
    return build_network(name, **SIZES, seed=seed)


def write(text, name="net.py"):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


@pytest.mark.parametrize("name", ["net.py", "net.py:Net", "net.py:Net(width=4)"])
def test_the_only_class_gets_classes_and_channels(name):
    model = build(write(NET) and name)
    assert model(torch.zeros(2, 2, 8, 8)).shape == (2, 3)
    assert model.conv.in_channels == 2


def test_own_values_win_over_settings():
    write(NET)
    assert build("net.py:Net(5, width=7)").head.out_features == 5
    assert build("net.py:Net(num_classes=6)").head.out_features == 6


def test_a_seed_gives_the_same_weights_and_leaves_the_random_state():
    write(NET + "random_number = __import__('torch').rand(1)\n")
    state = torch.get_rng_state()
    first, second, other = build("net.py"), build("net.py"), build("net.py", seed=1)
    assert torch.equal(first.conv.weight, second.conv.weight)
    assert not torch.equal(first.conv.weight, other.conv.weight)
    assert torch.equal(state, torch.get_rng_state())


def test_a_network_object_is_seeded_too():
    write(
        "from torch import nn\nmodel = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))\n"
    )
    first, second, other = build("net.py"), build("net.py:model"), build("net.py", 1)
    assert torch.equal(first[1].weight, second[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)


def test_the_only_function_is_taken_if_there_is_no_class():
    code = "from torch import nn\ndef make(num_classes):\n"
    write(code + "    return nn.Linear(2, num_classes)\n")
    assert build("net.py").out_features == 3


def test_a_square_image_size_is_one_number():
    code = "from torch import nn\ndef make(img_size):\n    net = nn.Identity()\n"
    write(code + "    net.size = img_size\n    return net\n")
    assert build("net.py").size == 8
    sizes = {**SIZES, "image_size": (4, 6)}
    assert build_network("net.py", **sizes).size == (4, 6)


def test_what_the_code_changes_is_restored(capsys, tmp_path):
    folder, path = Path.cwd(), list(sys.path)
    Path("elsewhere").mkdir()
    write(
        "import os, random, sys, torch\nimport numpy as np\n"
        "print('hello')\nos.chdir('elsewhere')\nsys.path.append('nowhere')\n"
        "random.seed(0); np.random.seed(0); torch.manual_seed(0)\n"
        "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)\n"
        + NET.replace("from torch import nn", "from torch import nn; print('again')")
    )
    random.seed(5)
    np.random.seed(5)
    expected = random.Random(5).random(), np.random.RandomState(5).rand()
    build("net.py")
    assert Path.cwd() == folder
    assert sys.path == path
    assert (random.random(), np.random.rand()) == expected
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    out, err = capsys.readouterr()
    assert out == ""
    assert "hello" in err
    assert (
        f"note: net.py changed the working directory to {folder / 'elsewhere'}" in err
    )
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_working_directory_that_is_removed_is_restored(capsys):
    folder = Path.cwd()
    write("import os\nos.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n" + NET)
    build("net.py")
    assert Path.cwd() == folder
    assert "changed the working directory and removed it" in capsys.readouterr().err


def test_neighbors_are_imported_from_the_folder_of_the_file():
    """Two files of different folders import neighbors of the same name."""
    for name, width in (("a", 3), ("b", 5)):
        write(f"WIDTH = {width}\nimport more.deep\n", f"{name}/blocks.py")
        Path(name, "more").mkdir()
        write("", f"{name}/more/__init__.py")
        write("", f"{name}/more/deep.py")
        code = "import json, torch\nfrom torch import nn\nfrom blocks import WIDTH\n"
        write(code + "net = nn.Linear(WIDTH, 2)\n", f"{name}/net.py")
    assert [build(f"{name}/net.py").in_features for name in "aba"] == [3, 5, 3]
    assert set(local_imports(Path("a/net.py"))) == {"blocks", "more"}


def test_lazy_layers_get_their_shapes_from_the_image():
    code = "from torch import nn\nmodel = nn.Sequential(nn.LazyConv2d(4, 3), "
    write(code + "nn.Flatten(), nn.LazyLinear(3))\n")
    model = build("net.py")
    assert model[2].in_features == 4 * 6 * 6
    assert model[0].in_channels == 2


MISTAKES = {
    "import nothing_like_this": "install the package nothing_like_this",
    "import torch\nraise ValueError('my own')": "ValueError: my own",
    "def broken(:": "SyntaxError",
    "import sys\nsys.exit(3)": r"ended the program: sys.exit\(3\)",
    "x = 1": "defines no nn.Module class and no function",
    NET + "class Other(Net): pass\n": r"2 nn.Module classes: Net, Other",
    "def a(): pass\ndef b(): pass": "2 functions: a, b",
    NET.replace("width=4", "width"): "Net needs the argument width",
    NET.replace("width=4", "width, depth"): "Net needs the arguments width, depth",
    "def make(): return 3": "returned a int, not an nn.Module",
}


@pytest.mark.parametrize(("code", "message"), MISTAKES.items())
def test_mistakes_are_plain(code, message):
    code = code.replace("num_classes=10, in_channels=1, width", "width")
    with pytest.raises(SettingError, match=message) as caught:
        build(write(code))
    assert "net.py" in str(caught.value)


def test_the_line_of_an_error_is_named():
    with pytest.raises(SettingError) as caught:
        build(write("import os\n\nraise RuntimeError('no')\n"))
    assert caught.value.where == "net.py, line 3"


def test_a_network_object_cannot_be_called():
    write("from torch import nn\nmodel = nn.Linear(1, 2)\n")
    with pytest.raises(SettingError, match="is a network already"):
        build("net.py:model(3)")


def test_a_network_that_fails_on_the_images_is_a_plain_message(refused, shared_folder):
    write(NET.replace("self.head(", "self.hedd("))
    error = refused(shared_folder, "--model", "net.py")
    assert "the network fails on images of 8×8×1: AttributeError" in error


def test_outputs_that_differ_from_the_classes(refused, shared_folder):
    write(NET.replace("num_classes=10", "outputs=10").replace("num_classes", "outputs"))
    error = refused(shared_folder, "--model", "net.py")
    assert "model output (10,) does not match 2 classes" in error
    assert "or write net.py:Net(num_classes=2)" in error
    error = refused(shared_folder, "--model", "8x8x1 > conv 3x3 4 > gap > dense 5")
    assert "end the sketch with: > dense 2" in error
    assert outputs_fix("resnet18", 4) == "build the model with num_classes=4"


def test_a_recipe_gets_the_class_and_the_input_of_a_sketch():
    write(NET)
    assert resolve_network(Recipe(data="d", model="net.py")).model == "net.py:Net"
    text = "8x6x1 > dense 2"
    recipe = resolve_network(Recipe(data="d", model=text))
    assert (recipe.image_size, recipe.in_chans) == ((8, 6), 1)
    with pytest.raises(SettingError, match=r"begins with 8x6x1, but .* give 9x9x1"):
        resolve_network(Recipe(data="d", model=text, image_size=9))
    with pytest.raises(SettingError, match="give 8x6x3"):
        resolve_network(Recipe(data="d", model=text, in_chans=3))
    with pytest.raises(SettingError, match=r"file.py:Class, a run folder, or a sketch"):
        resolve_network(Recipe(data="d", model="resnet19"))
    with pytest.raises(SettingError) as caught:
        build("best.pt")
    assert "give weights with --pretrained" in str(caught.value)


def test_a_file_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    write(NET)
    assert load_python_network("~/net.py").path == tmp_path / "net.py"
    assert isinstance(build("~/net.py"), nn.Module)


def test_a_failure_during_the_run_has_the_line_and_no_traceback(striate):
    late = "        self.n = getattr(self, 'n', 0) + 1\n"
    late += "        if self.training and self.n > 5: raise ValueError('too late')\n"
    write(NET.replace("        return", f"{late}        return"))
    words = ["--model", "net.py", "--epochs", "2", "--batch-size", "64", "--out", "run"]
    ended = striate("train", "digits", *words)
    assert ended.code == 2
    assert "the network fails during the run: ValueError: too late" in ended.err
    assert f"net.py, line {NET.count(chr(10)) + 1}" in ended.err
    assert "Traceback" not in ended.err
    assert read_json(Path("run/manifest.json"))["status"] == "stopped"
    assert list(Path("run/weights").iterdir())
