"""`striate summary --code`: standalone code that computes the same as the network."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from striate.audit.sketch_parser import sketch
from striate.core.errors import SettingError
from striate.models.catalogue import list_models, model_entry
from striate.models.head import deepen
from striate.run.create_model import create_model
from striate.workflows.summary.write_code import network_code

SKETCHES = [
    "8x8x1 > conv 5x5 8 same > relu > pool 2 > dense 10",
    "9x8x3 > conv 2x2 4 same > bn > tanh > sum [conv 3x3 4 same, ] > lrn > dense 2",
    "8x8x3 > [conv 1x1 2, conv 3x3 3 same > relu, [conv 1x1 1, id]] > gap > dense 3",
    "8x8x3 > 4 * (conv 3x3 3 same depthwise > sigmoid) > avgpool 3 /2 ceil > dense 3",
    "8x8x2 > deconv 2x3 4 > upsample 2 > dropout > gap 2 > flatten > dense 4 nobias",
]
FAST = [
    *("lenet5", "lenet5_modern", "tutorial_gray", "tutorial_color", "fast_small_large"),
    *("cifar_resnet20", "cifar_plain20"),
]


def written(code):
    """Return the network class of a file, which is its last class."""
    names = {"__name__": "written"}
    exec(compile(code, "written.py", "exec"), names)  # noqa: S102 - our own code
    return [value for value in names.values() if isinstance(value, type)][-1]


def check(model, name, shape):
    """Assert that the written network has the keys and the output of the network."""
    code = network_code(model, name, shape)
    copy = written(code)()
    assert list(copy.state_dict()) == list(model.state_dict())
    copy.load_state_dict(model.state_dict())
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, logits = model.eval()(x), copy.eval()(x)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    return code


def check_named(name, side=None):
    entry = model_entry(name)
    size = side or (entry.image.height, entry.image.width)
    model = create_model(name, num_classes=10, image_size=size, seed=0)
    height, width = (size, size) if isinstance(size, int) else size
    return check(model, name, (entry.image.channels, height, width))


@pytest.mark.parametrize("text", SKETCHES)
def test_a_sketch_as_code_gives_the_same_output(text):
    model, shape = sketch(text)
    check(model, "sketch", shape)


@pytest.mark.parametrize("name", FAST)
def test_a_network_as_code_gives_the_same_output(name):
    check_named(name)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "googlenet_bn_no_aux", "antialiased_resnet18_slim"]
)
def test_blocks_become_classes(name):
    code = check_named(name, side=64)
    repeated = {"mobilenet_v2": "ConvBnRelu6", "googlenet_bn_no_aux": "ConvBnRelu"}
    assert f"class {repeated.get(name, 'DownsampleBasicBlock')}(" in code


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_network_as_code_gives_the_same_output(name):
    check_named(name)


def test_auxiliary_heads_run_in_training():
    model = create_model("googlenet_bn", num_classes=3, image_size=64)
    copy = written(network_code(model, "googlenet_bn", (3, 64, 64)))().train()
    logits, *auxiliary = copy(torch.zeros(2, 3, 64, 64))
    assert [x.shape for x in (logits, *auxiliary)] == [(2, 3)] * 3
    assert not isinstance(copy.eval()(torch.zeros(1, 3, 64, 64)), tuple)


def test_a_deeper_head():
    model = create_model("cifar_resnet20", num_classes=3, seed=0)
    deepen(model, 5)
    assert "self.fc = nn.Sequential(" in check(model, "own", (3, 32, 32))


def test_the_file_is_formatted_and_runs_without_striate(striate, tmp_path):
    for target in ("lenet5", "googlenet", "antialiased_resnet50", *SKETCHES):
        words = ("summary", target, "--code", "own.py", "--overwrite")
        assert striate(*words).out == "code    own.py\n"
        ruff = [Path(sys.executable).with_name("ruff"), "format", "--diff", "own.py"]
        assert subprocess.run(ruff, capture_output=True).stdout == b""
        assert "striate." not in Path("own.py").read_text()
    code = "import runpy, sys; runpy.run_path('own.py', run_name='__main__'); "
    code += "assert 'striate' not in sys.modules"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "torch.Size([1, 4])\n"


def test_code_of_a_run_loads_its_weights(striate, shared_run):
    code = striate("summary", shared_run.path, "--code").out
    copy = written(code)()
    copy.load_state_dict(shared_run.model.state_dict())
    x = torch.rand(3, *shared_run.preprocess.spec.shape)
    with torch.no_grad():
        expected = shared_run.model(x)
        torch.testing.assert_close(copy.eval()(x), expected)


def test_what_has_no_code(striate, tmp_path):
    with pytest.raises(SettingError, match="no code for layers of the type Own"):
        network_code(nn.Sequential(type("Own", (nn.Module,), {})()), "x", (1, 2, 2))
    (tmp_path / "net.py").write_text("from torch import nn\nnet = nn.Identity()\n")
    said = striate("summary", "net.py", "--code")
    assert "is a Python file, which is standalone code already" in said.err
    said = striate("summary", "lenet5", "--code", "net.py")
    assert "the output file already exists" in said.err
    said = striate("summary", "lenet5", "--depth", "1", "--code")
    assert "--depth has no effect with --code" in said.err
    data = striate("summary", SKETCHES[0], "--json", "--code").json
    assert data["file"] is None
    assert "class Sketch(nn.Module):" in data["code"]
    assert SKETCHES[0] in data["code"]
