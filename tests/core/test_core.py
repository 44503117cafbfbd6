"""Errors, registries, preprocessing, seeds and hooks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from striate.core import device, errors
from striate.core.class_names import ClassNames
from striate.core.conv_arithmetic import (
    Window,
    output_side,
    output_side_through,
    padding_amounts,
)
from striate.core.derive_seed import derive_seed
from striate.core.errors import (
    DataError,
    GeometryError,
    SettingError,
    StriateError,
    UnknownNameError,
)
from striate.core.hooks import capture_outputs, evaluation_mode
from striate.core.preprocess_config import ImageSpec, Preprocess, normalization
from striate.core.registry import Registry, closest_names, unknown_name_error
from striate.core.seeds import numpy_generator, permutation

# --- errors


def test_every_error_is_a_striate_error():
    kinds = [e for e in vars(errors).values() if isinstance(e, type)]
    assert all(issubclass(kind, StriateError) for kind in kinds)
    codes = {kind.__name__: kind.exit_code for kind in kinds if kind.exit_code != 2}
    ones = dict.fromkeys(["NonFiniteError", "WorkerError", "RankError"], 1)
    assert codes == {**ones, "InterruptedRunError": 130}


def test_an_error_as_text_and_as_json():
    error = DataError("what", where=3, fix="do")
    assert str(error) == "what\n  where: 3\n  do:    do"
    assert str(DataError("what")) == "what"
    fields = {"error": "DataError", "what": "what", "where": "3", "do": "do"}
    assert error.as_dict() == fields


# --- registry


def test_closest_names_ignore_case_and_hyphens():
    assert closest_names("Fashion_MNIST", ["fashion-mnist", "digits"]) == [
        "fashion-mnist"
    ]
    assert closest_names("gray", ["tutorial_gray", "lenet5"]) == ["tutorial_gray"]
    assert closest_names("", ["a", "b"]) == []


def test_registry():
    table: Registry[int] = Registry("shape")
    table.add("square")(4)
    with pytest.raises(ValueError, match="shape 'square' is registered twice"):
        table.add("square")(5)
    with pytest.raises(UnknownNameError, match="did you mean square"):
        table["sqare"]
    assert "square" in table
    assert "circle" not in table


def test_unknown_name_without_a_close_choice():
    said = str(unknown_name_error("shape", "xyz", ["square"]))
    assert said == "no shape is called 'xyz'\n  do:    choose one of: square"


def test_unknown_name_in_a_long_list():
    names = [f"block{i}" for i in range(100, 0, -1)]
    said = unknown_name_error("layer", "blok7", names, where="--cut")
    assert said.where == "--cut"
    assert "did you mean block7" in said.fix
    assert "block100, block99, " in said.fix
    assert said.fix.endswith("block89, … (100 in all)")


# --- spec


def test_preprocess_refuses():
    with pytest.raises(UnknownNameError, match="no resize mode is called 'strech'"):
        Preprocess(channels=1, height=8, width=8, resize="strech")
    with pytest.raises(SettingError, match="must be at least 1, got 0×8×1"):
        Preprocess(channels=1, height=0, width=8)
    for fields in ({"channels": 1}, {"channels": 1, "height": 8, "width": 8, "x": 1}):
        with pytest.raises(SettingError, match="unknown or missing key"):
            Preprocess.from_dict(fields)


UNIT = st.floats(0, 1, allow_nan=False)
STATISTICS = st.integers(1, 5).flatmap(
    lambda count: st.lists(
        st.tuples(UNIT, st.floats(1e-3, 1)), min_size=count, max_size=count
    )
)


@given(
    st.integers(1, 900),
    st.integers(1, 900),
    st.sampled_from(["stretch", "crop", "pad"]),
    st.integers(0, 255),
    STATISTICS,
)
def test_preprocess_round_trip(height, width, resize, background, stats):
    import json

    channels = len(stats)
    made = Preprocess(
        channels=channels,
        height=height,
        width=width,
        resize=resize,
        background=background,
        mean=tuple(m for m, _ in stats),
        std=tuple(s for _, s in stats),
    )
    assert Preprocess.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    assert made.spec == ImageSpec(channels=channels, height=height, width=width)
    assert made.spec.shape == (channels, height, width)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"background": 256}, "background must be 0–255, got 256"),
        ({"white_level": 254}, "white_level must be 255–65535, got 254"),
        ({"height": 0}, "channels, height and width must be at least 1"),
    ],
)
def test_preprocess_refuses_invalid_sizes_and_levels(setting, said):
    with pytest.raises(SettingError, match=said):
        Preprocess(**{"channels": 3, "height": 8, "width": 8, **setting})


def test_normalization_by_name():
    with pytest.raises(UnknownNameError, match="did you mean imagenet"):
        normalization("imagnet", None, None, 3)
    mean, std = normalization("imagenet", None, None, 1)
    # Gray is the mean of the three channels, in level and in spread.
    assert mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,), abs=1e-6)
    assert std == pytest.approx(((0.229 + 0.224 + 0.225) / 3,), abs=1e-6)


def test_class_names():
    labels = ClassNames.of(["cat", "dog", "cat"])
    assert (labels.index("dog"), labels.index(1), labels[1]) == (1, 1, "dog")
    with pytest.raises(UnknownNameError, match="did you mean dog"):
        labels.index("dgo")
    for wrong in (2, -1):
        with pytest.raises(
            UnknownNameError, match=f"no class index is called '{wrong}'"
        ):
            labels.index(wrong)
    with pytest.raises(DataError, match="two classes have the same name"):
        ClassNames(("a", "a"))


def test_numeric_class_names_sort_as_numbers():
    """'1' and '01' are one number: without the name as tie-break the order of classes
    would depend on Python's hash seed."""
    ones = [f"{'0' * zeros}1" for zeros in range(9, -1, -1)]
    assert ClassNames.of(["10", "9", *ones]).names == (*ones, "9", "10")
    assert ClassNames.of(["10", "9", "x"]).names == ("10", "9", "x")


# --- seeds


def test_draws_are_functions_of_their_key():
    assert derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
    others = [(1, "order", 1), (0, "split", 1), (0, "order", 2), ("0", "order", 1)]
    assert (
        len({derive_seed(0, "order", 1), *(derive_seed(*parts) for parts in others)})
        == 5
    )
    assert 0 <= derive_seed("x") < 2**63
    assert (permutation(9, 1) == permutation(9, 1)).all()
    assert numpy_generator(1).random() != numpy_generator(2).random()


def test_seeds_are_frozen():
    """An old run's split and order must come out again in every later version."""
    assert derive_seed(0, "order", 0) == 8_910_218_324_382_068_013
    assert permutation(5, 0, "order", 0).tolist() == [3, 1, 2, 0, 4]


# --- arithmetic


def test_output_side_through_refuses_windows_that_do_not_fit():
    with pytest.raises(GeometryError, match=r"size 5 does not fit an input of size 2 "):
        output_side(2, 5, padding=(1, 1))
    with pytest.raises(GeometryError, match="padding cannot be 'full'"):
        padding_amounts("full", 8, 3)
    windows = [Window(name="conv", kernel=5), Window(name="pool", kernel=2, stride=2)]
    with pytest.raises(GeometryError, match="layer pool: a window of size 2") as caught:
        output_side_through(5, windows)
    assert "at least 6×6 (--image-size 6)" in str(caught.value)
    assert output_side_through(6, windows) == 1


# --- taps


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 2)
        self.drop = nn.Dropout()

    def forward(self, x):
        return self.drop(self.one(x)), "not a tensor"


def test_evaluation_mode_restores_everything_after_errors():
    model = Branches()
    model.drop.eval()
    torch.manual_seed(1)
    state = torch.get_rng_state()

    def misuse():
        with evaluation_mode(model) as lent:
            assert not lent.training
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        misuse()
    assert model.training
    assert not model.drop.training
    assert (torch.get_rng_state() == state).all()


def test_capture_outputs_passes_tensors_and_removes_hooks():
    model, seen = Branches(), []
    with capture_outputs(model, ["one", ""], lambda name, out: seen.append(name)):
        model(torch.zeros(1, 2))
    assert seen == ["one"]
    wrong = capture_outputs(model, ["drop", "onee"], lambda name, out: None)
    with pytest.raises(UnknownNameError, match="did you mean one"), wrong:
        pass
    assert not any(m._forward_hooks for m in model.modules())


# --- device


def test_select_device(monkeypatch):
    assert device.select_device("auto").type in ("cpu", "cuda", "mps", "xpu")
    for name in ("cuda:99", "tpu"):
        with pytest.raises(SettingError, match=f"device '{name}' cannot be used"):
            device.select_device(name)
    fake = torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: fake)
    assert device.select_device("auto") is fake
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert device.select_device("auto").type == "cpu"


def test_flush_denormals_restores_the_setting():
    before = device._flushes()
    with device.flush_denormals():
        assert device._flushes()
    assert device._flushes() == before


def test_the_place_of_an_error_is_short():
    """A path is shown in full, an array by its beginning, in one line."""
    path = "folder/" * 100
    assert StriateError("x", where=Path(path)).where == str(Path(path))
    assert StriateError("x", where=path).where == path
    place = StriateError("x", where=np.zeros((20, 20))).where
    assert len(place) <= 200
    assert "\n" not in place
    assert StriateError("x", where=("a", "b")).where == "('a', 'b')"
