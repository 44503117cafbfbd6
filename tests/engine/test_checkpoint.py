"""Weights on disk: whole or not at all, of this network or not at all, never pickle."""

import errno
import json
import os
import pickle  # noqa: TID251 - what must be refused is made with it
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from striate.core.errors import StorageError, WeightsError
from striate.engine.checkpoint import (
    Keeper,
    differences,
    load_weights,
    read_weights,
    save_weights,
)
from striate.engine.loop import EpochDone, StepDone
from striate.engine.optim import make_optimizer
from striate.engine.step import train_step


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


def test_another_network_lists_the_first_five(tmp_path):
    save_weights(tmp_path / "a", net(5).state_dict())
    said = refusal(net(), tmp_path / "a")
    assert said.startswith("the weights are of another network; nothing was loaded:")
    lines = said.splitlines()[1:]
    assert lines == [
        "  0.bias: shape 5, the network has 4",
        "  0.weight: shape 5×1×3×3, the network has 4×1×3×3",
        "  1.bias: shape 5, the network has 4",
        "  1.running_mean: shape 5, the network has 4",
        "  1.running_var: shape 5, the network has 4",
        "  … and 2 more",
    ] or (len(lines) == 6 and lines[-1] == "  … and 2 more")


def test_missing_strange_and_nan(tmp_path):
    tensors = net().state_dict()
    tensors["extra"] = tensors.pop("3.bias")
    tensors["3.weight"][0, 0] = float("nan")
    save_weights(tmp_path / "a", tensors)
    said = refusal(net(), tmp_path / "a").splitlines()[1:]
    assert said[0] == "  3.bias: missing"
    assert set(said[1:]) == {
        "  3.weight: holds NaN or infinite values",
        "  extra: not in the network",
    }


def test_differences_name_scalars():
    found = {"n": torch.zeros(2)}
    wanted = {"n": torch.tensor(0)}
    assert differences(wanted, found) == ["n: shape 2, the network has scalar"]


def test_missing_file_and_folder(tmp_path):
    assert refusal(net(), tmp_path / "gone") == "the weights are missing"
    (tmp_path / "folder").mkdir()
    assert refusal(net(), tmp_path / "folder") == (
        "the weights cannot be read: Is a directory"
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
def test_anything_but_safetensors_is_refused_unread(tmp_path, name):
    path = tmp_path / "best.safetensors"
    path.write_bytes(HOSTILE[name])
    said = refusal(net(), path)
    assert said.startswith("not a sound safetensors file")
    assert not Path("exploded").exists()


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, {"a": torch.arange(6.0)})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError):
            read_weights(path)


# --- the keeper


def epoch(number, best):
    zeros = dict.fromkeys(
        ("train_loss", "val_loss", "val_accuracy", "val_balanced", "lr", "seconds"), 0.0
    )
    return EpochDone(epoch=number, best=best, **zeros)


@pytest.fixture
def keeper(tmp_path):
    model = net()
    optimizer = make_optimizer(model, "adamw", 0.01, 0.9, 0.1)
    train_step(model, torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]), optimizer)
    return Keeper(tmp_path / "weights", model, optimizer)


def test_best_is_kept_and_last_goes_on(keeper, tmp_path):
    keeper.on_step(StepDone(0, 6, 0.1, 0.1, 4, 0.1))
    keeper.on_epoch(epoch(0, best=True))
    best = read_weights(tmp_path / "weights/best.safetensors")
    with torch.no_grad():
        keeper.model[3].bias += 1
    keeper.on_epoch(epoch(1, best=False))
    assert torch.equal(
        best["3.bias"], read_weights(tmp_path / "weights/best.safetensors")["3.bias"]
    )
    last = tmp_path / "weights/last"
    assert same(keeper.model, read_weights(last / "model.safetensors"))
    state = json.loads((last / "state.json").read_text())
    assert (state["epochs_done"], state["steps_done"]) == (2, 7)
    assert [group["weight_decay"] for group in state["optimizer"]] == [0.1, 0.0]
    assert [group["params"] for group in state["optimizer"]] == [[0, 1], [2, 3, 4, 5]]
    moments = read_weights(last / "optimizer.safetensors")
    assert {name.split(".")[1] for name in moments} == {"step", "exp_avg", "exp_avg_sq"}
    assert len(moments) == 18


def test_an_optimiser_whose_state_is_empty(tmp_path):
    """SGD without momentum keeps None beside its parameters."""
    model = net()
    optimizer = make_optimizer(model, "sgd", 0.01, 0.0, 0.0)
    train_step(model, torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]), optimizer)
    Keeper(tmp_path, model, optimizer).save_last()
    assert read_weights(tmp_path / "last/optimizer.safetensors") == {}


@pytest.mark.parametrize(
    "name", ["best.safetensors", "model.safetensors", "state.json"]
)
def test_a_full_disk_spares_the_previous_checkpoint(
    keeper, tmp_path, monkeypatch, name
):
    keeper.on_epoch(epoch(0, best=True))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with torch.no_grad():
        keeper.model[3].bias += 1
    replace = os.replace

    def full(source, target):
        if str(target).endswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError) as caught:
        keeper.on_epoch(epoch(1, best=True))
    assert f"could not save {name}: the disk is full (" in caught.value.what
    assert "bytes needed" in caught.value.what
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == set(before)
    target = next(p for p in before if p.name == name)
    assert target.read_bytes() == before[target]
    for path in (p for p in before if p.suffix == ".safetensors"):
        read_weights(path)
