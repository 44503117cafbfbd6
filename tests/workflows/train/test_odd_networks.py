"""Networks that a summary refuses still train; the report names what is missing."""

import pytest
import torch
from torch import nn

import striate as st
from striate.cli.printing import print_end
from striate.core.errors import GeometryError, SettingError, StriateError

TRAIN_IMAGES = 112


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
        )

    def forward(self, x):
        return self.body(x)


class Branches(Odd):
    def forward(self, x):
        return self.body(x) if x.max() > -50 else self.body(-x)


class OnlyReal(Odd):
    def forward(self, x):
        if x.is_meta:
            raise ValueError("no shapes without values")
        if x.shape[0] == 1 and not x.any() and not self.training:
            self.count = getattr(self, "count", 0) + 1
        return self.body(x)


class Caching(Odd):
    """Caches a tensor for each batch size: evaluation must leave none to training."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        if len(x) not in self.cache:
            self.cache[len(x)] = torch.ones_like(x)
        return self.body(x * self.cache[len(x)])


class Numpy(Odd):
    def forward(self, x):
        return self.body(x) + float(x.detach().numpy().sum()) * 0


class Nowhere(OnlyReal):
    """Fails on a single image in evaluation mode, but for the first time."""

    single = 0

    def forward(self, x):
        self.single += len(x) == 1 and not self.training
        if self.single > 1:
            raise ValueError("no second single image")
        return super().forward(x)


@pytest.fixture(scope="module")
def data():
    return st.load_data("digits", fraction=0.1, cache="off")


def report_of(model, data):
    run = st.train(model, data, epochs=2, batch_size=32, quiet=True)
    assert run.manifest["status"] == "done"
    assert run.scores["val"]["count"] > 0
    return (run.path / "report.html").read_text()


@pytest.mark.parametrize("kind", [Branches, OnlyReal, Caching, Numpy])
def test_a_network_trains_and_its_report_has_the_layers(kind, data):
    text = report_of(kind(), data)
    assert "This section is missing" not in text
    assert "Conv2d" in text
    assert ("Training memory is unknown" in text) == (kind is not Caching)


def test_the_report_says_why_the_layers_are_missing(data):
    text = report_of(Nowhere(), data)
    assert "This section is missing: the network does not accept" in text
    assert "no second single image" in text


@pytest.mark.filterwarnings("ignore")
def test_torchscript_trains_without_a_table_of_layers(data):
    text = report_of(torch.jit.script(Odd()), data)
    assert "a summary needs layers in Python" in text


def test_lazy_layers_get_their_shapes_from_the_data(data):
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(10))
    assert "Conv2d" in report_of(model, data)
    assert model[0].weight.shape == (4, 1, 3, 3)


def test_lazy_layers_that_fail_or_do_not_run_are_refused(data, tmp_path):
    idle = Odd()
    idle.idle = nn.LazyLinear(3)
    with pytest.raises(GeometryError, match=r"the lazy layer idle has no shape"):
        st.train(idle, data, epochs=1, quiet=True)
    wrong = nn.Sequential(nn.LazyConv2d(4, 30), nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(GeometryError, match="which fails on images of 8×8×1"):
        st.train(wrong, data, epochs=1, quiet=True)
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_compiled_network_trains_as_the_network_inside(data):
    model = Odd()
    before = model.body[0].weight.clone()
    run = st.train(torch.compile(model, backend="eager"), data, epochs=1, quiet=True)
    assert not torch.equal(model.body[0].weight, before)
    assert run.model is model
    compiled = torch.compile(Odd(), backend="eager")
    assert st.load_run(run.path, model=compiled).model is compiled._orig_mod


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_refused_before_anything_is_written(data, tmp_path):
    program = torch.export.export(Odd(), (torch.zeros(2, 1, 8, 8),)).module()
    with pytest.raises(SettingError, match="exported program"):
        st.train(program, data, epochs=1, quiet=True)
    assert not list(tmp_path.rglob("manifest.json"))


class NoBlack(Odd):
    def forward(self, x):
        if x.is_meta or not x.flatten(1).any(1).all():
            raise ValueError("an image is black")
        return self.body(x)


class LateFailure(Nowhere):
    """Fails on the training images together, after validation and test."""

    def forward(self, x):
        if len(x) == TRAIN_IMAGES:
            raise ValueError("too many images")
        return super().forward(x)


class Squeezing(Odd):
    def forward(self, x):
        return self.body(x).squeeze()


class NoSingle(Odd):
    def forward(self, x):
        if len(x) == 1:
            raise ValueError("no single image")
        return self.body(x)


class NoEvaluation(Odd):
    def forward(self, x):
        if not self.training:
            raise ValueError("no evaluation")
        return self.body(x)


def test_a_network_that_refuses_black_images_trains(data):
    text = report_of(NoBlack(), data)
    assert "This section is missing" not in text
    assert "Conv2d" in text


def test_a_result_is_kept_if_the_training_accuracy_fails(data, capsys):
    assert len(data.subset("train")) == TRAIN_IMAGES
    run = st.train(LateFailure(), data, epochs=1, batch_size=32, quiet=True)
    assert run.manifest["status"] == "done"
    assert run.manifest["train_accuracy"] is None
    assert set(run.scores) == {"val", "test"}
    missing = ["Filters and feature maps", "Layers"]
    assert run.manifest["missing_sections"] == missing
    print_end(run)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"report.html (without {', '.join(missing)}; the report" in printed
    text = (run.path / "report.html").read_text()
    assert "The training accuracy is missing: ValueError: too many images." in text
    assert "This section is missing: the network does not accept" in text


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (NoSingle, "fails on a batch of one image: ValueError: no single image"),
        (NoEvaluation, "fails in evaluation mode: ValueError: no evaluation"),
        (Squeezing, "for a batch of one image, the output has no dimension"),
    ],
)
def test_networks_that_cannot_be_evaluated_are_refused(kind, reason, data, tmp_path):
    with pytest.raises(StriateError, match=reason):
        st.train(kind(), data, epochs=1, quiet=True)
    assert not list(tmp_path.rglob("manifest.json"))
