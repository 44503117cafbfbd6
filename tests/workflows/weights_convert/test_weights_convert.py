"""`striate weights convert`: every tensor unchanged, in the format of the suffix."""

import argparse

import pytest
import torch
from safetensors.torch import load_file, save_file

from striate.core.errors import WeightsError
from striate.engine.weights_io import save_weights
from striate.workflows.weights_convert import convert
from striate.workflows.weights_convert.convert import convert_weights

STATE = {
    "float": torch.tensor([[1.5, float("nan")], [-0.0, float("inf")]]),
    "half": torch.randn(3, 2, generator=torch.manual_seed(0)).half(),
    "bfloat": torch.ones(2).bfloat16(),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "transposed": torch.arange(6.0).view(2, 3).T,
}


def same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert tensor.shape == second[name].shape
        assert torch.equal(tensor.nan_to_num(), second[name].nan_to_num())


def load(path):
    return torch.load(path, weights_only=True)  # noqa: TID251 - as others read it


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_there_and_back(striate, tmp_path, suffix):
    save_weights(tmp_path / "a.safetensors", STATE)
    pickle = tmp_path / f"b{suffix}"
    said = striate("weights", "convert", tmp_path / "a.safetensors", pickle)
    assert said.code == 0
    assert "7 tensors, 21 values, unchanged" in said.out
    same(STATE, load(pickle))
    data = striate("weights", "convert", pickle, "c.safetensors", "--json").json
    assert (data["tensors"], data["values"], data["left_out"]) == (7, 21, [])
    same(STATE, load_file("c.safetensors"))


def test_entries_that_are_no_weights_are_named(striate):
    saved = {"epoch": 3, "state_dict": STATE, "optimizer": {"lr": 1.0}}
    torch.save(saved, "whole.pth")  # noqa: TID251 - to make the file
    said = striate("weights", "convert", "whole.pth", "own.safetensors")
    assert "not weights, left out: epoch, optimizer" in said.out
    same(STATE, load_file("own.safetensors"))


def test_other_objects_need_trust(striate):
    saved = {"state_dict": STATE, "options": argparse.Namespace(lr=1)}
    torch.save(saved, "other.pth")  # noqa: TID251 - to make the file
    said = striate("weights", "convert", "other.pth", "own.safetensors")
    assert said.code == 2
    assert "such as argparse.Namespace; no code ran" in said.err
    words = ("weights", "convert", "other.pth", "own.safetensors", "--trust")
    assert striate(*words).code == 0


def test_the_best_weights_of_a_run(striate, shared_run):
    assert striate("weights", "convert", shared_run.path, "run.pth").code == 0
    same(load_file(shared_run.path / "weights/best.safetensors"), load("run.pth"))


def test_nothing_is_replaced_or_guessed(striate, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / "b.pth").write_text("mine")
    said = striate("weights", "convert", "a.safetensors", "b.pth")
    assert "the output file already exists" in said.err
    assert (tmp_path / "b.pth").read_text() == "mine"
    words = ("weights", "convert", "a.safetensors", "b.pth", "--overwrite")
    assert striate(*words).code == 0
    said = striate("weights", "convert", "a.safetensors", "b.onnx")
    assert "'.onnx' is not the suffix of a weights file" in said.err
    said = striate("weights", "a.safetensors")
    assert "run: striate weights convert a.safetensors OUT; commands: con" in said.err
    assert "no such file" in striate("weights", "convert", "x.pth", "y.pth").err


def test_a_file_that_differs_is_an_error(tmp_path, monkeypatch):
    """The new file is read again."""
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")

    def wrong(path, tensors):
        save_file({"a": torch.zeros(2)}, path)

    monkeypatch.setattr(convert, "save_weights", wrong)
    with pytest.raises(WeightsError, match="the tensor a differs in the new file"):
        convert_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
