"""`striate explain`: folders of every kind of target, and every mistake."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import DataError, SettingError
from striate.workflows.explain.explain import explain_images
from striate.workflows.explain.load_model import load_model
from support.images import pil_image as as_image
from support.images import snapshot, stripes

FILE = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, in_chans=3, num_classes=3):
        super().__init__()
        print("built")
        torch.manual_seed(0)
        self.first = nn.Conv2d(in_chans, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(F.relu(self.second(self.act(self.first(x)))).mean((2, 3)))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    as_image(stripes(2, 7, 40, 50, 3)).save(path)
    return path


def test_run_without_images(striate, shared_run):
    before = snapshot(shared_run.path)
    said = striate("explain", shared_run.path)
    assert said.code == 0, said.err
    assert "sanity checks" in said.out
    folder = (
        said.out.strip().splitlines()[-1].split(None, 1)[1].removesuffix("/report.html")
    )
    assert folder == f"runs/explain/{shared_run.path.name}"
    data = json.loads(Path(folder, "explain.json").read_text())
    assert data["made_by"] == "striate explain"
    first = data["images"][0]
    assert first["true"] == first["pred"] == first["predictions"][0]["class"]
    methods = [row["method"] for row in first["attributions"]]
    assert methods[1:3] == ["Occlusion", "Integrated gradients"]
    page = Path(folder, "report.html").read_text()
    for words in (
        "How the score is computed",
        "One unit",
        "Filters and feature maps",
        "What channels detect",
        "Class selectivity by depth",
        "<details",
    ):
        assert words in page
    assert not re.search(r"(src|href)=.?https?:", page)
    assert snapshot(shared_run.path) == before
    again = striate("explain", shared_run.path, "--json")
    assert again.json["folder"] == f"{folder}-2"


def test_dataset_and_invariance_sections(striate, shared_run, file, photo, tmp_path):
    words = ("--sections", "dataset,invariance", "--method", "gradcam", "--json")
    result = striate("explain", shared_run.path, *words, "--out", tmp_path / "all").json
    rows = result["dataset"]["classes"]
    judged = len(shared_run.predictions(shared_run.evaluated_split).paths)
    assert (
        sum(row["images"] for row in rows) + result["dataset"]["empty_heatmaps"]
        == judged
    )
    moves = {one["transform"]: one for one in result["invariance"]["transforms"]}
    assert set(moves) == {"shift", "rotation", "scale", "shear", "color"}
    assert all(one["consistency"][0] == 1 for one in moves.values())
    pools = result["invariance"]["pools"]
    assert not pools or set(pools) >= {"max", "average", "strided", "blur"}
    page = (tmp_path / "all" / "report.html").read_text()
    for words in (
        "Heatmaps over the dataset",
        "Attribution on border and background",
        "Invariance to image transforms",
    ):
        assert words in page
    said = striate("explain", f"{file}:Net", photo, "--sections", "dataset")
    assert said.code == 2
    assert "these sections need a dataset" in said.err
    said = striate("explain", shared_run.path, "--sections", "sets")
    assert said.code == 2
    assert "no section is called 'sets'" in said.err


def test_a_file_of_your_own_with_images(striate, file, photo, tmp_path):
    words = ("--image-size", "24x32", "--target", "#1", "--against", "#0")
    method = ("--method", "gradcam,layercam,scorecam", "--out", tmp_path / "mine")
    said = striate("explain", f"{file}:Net", photo, *words, *method)
    assert said.code == 0, said.err
    assert "class 1 rather than class 0" in said.out
    assert "the weights are random" in said.out
    assert "mean 0.485, 0.456, 0.406" in said.out
    drawn = sorted(path.name for path in (tmp_path / "mine" / "images").iterdir())
    assert any("layercam" in name for name in drawn)
    quick = ("--method", "gradcam", "--image-size", "12x16", *method[2:])
    assert striate("explain", f"{file}:Net", photo, *quick).code == 2
    words = (*quick, "--overwrite", "--json")
    assert striate("explain", f"{file}:Net", photo, *words).code == 0
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "explain.json").write_text("{}")
    words = (*quick[:-1], keep, "--overwrite")
    said = striate("explain", f"{file}:Net", photo, *words)
    assert said.code == 2
    assert "not a run folder" in said.err
    assert (keep / "explain.json").read_text() == "{}"


def test_open_one_unit_in_the_terminal(striate, file, photo):
    said = striate("explain", f"{file}:Net", photo, "--open", "second 3,2,2")
    assert said.code == 0, said.err
    assert "second [3, 2, 2]" in said.out
    assert "convolution: 54 terms" in said.out
    assert "bias" in said.out
    assert "second [3, 2, 2]: the sum in numbers" in said.out
    assert "value" in said.out
    result = striate(
        "explain", f"{file}:Net", photo, "--open", "output 2", "--json"
    ).json
    assert result["worked_example"]["title"].startswith("second [")
    top = result["tree"][0]
    assert top["title"] == "output [2]" or top["title"] == "head [2]"
    assert len(top["children"]) >= 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--open", "second"], "'second' is not a unit"),
        (["--unit", "second 1"], "second has no unit (1,)"),
        (["--unit", "second"], "'second' is not a unit"),
        (["--open", "secnd 1,2,3"], "no layer is called 'secnd'"),
        (["--open", "second 9,0,0"], "no unit (9, 0, 0)"),
        (["--visualize", "second"], "'second' names no channel"),
        (["--visualize", "second 99"], "second has no channel 99"),
        (["--ablate", "secnd 1"], "no layer is called 'secnd'"),
        (["--ablate", "second 1,2,3,4,5,6,7,8,9"], "9 channels; at most 8"),
        (["--layer", "seco"], "no layer is called 'seco'"),
        (["--layer", "head"], "head has the output 3, which is not a feature map"),
        (["--method", "gradcan"], "no method is called 'gradcan'"),
        (["--target", "cat"], "no class is called 'cat'"),
        (["--in-chans", "4"], "images have 3 channels, the network takes 4"),
        (["--image-size", "1"], "does not accept a batch"),
    ],
)
def test_argument_errors(striate, file, photo, tmp_path, words, message):
    before = snapshot(tmp_path)
    said = striate("explain", f"{file}:Net", photo, *words)
    assert said.code == 2
    assert message in said.err
    after = snapshot(tmp_path)
    changed = {path for path in after if after[path] != before.get(path)}
    assert not [path for path in changed if b"__pycache__" not in path]


def test_a_unit_on_the_page(striate, file, photo, tmp_path):
    words = ("--unit", "second 3,2,2", "--method", "gradcam", "--json")
    result = striate("explain", f"{file}:Net", photo, *words, "--out", tmp_path / "one")
    facts = result.json["unit"]
    assert (facts["layer"], facts["unit"]) == ("second", [3, 2, 2])
    assert facts["box"] == [[3, 7], [3, 7]]
    assert (
        "second [3, 2, 2]: the sum in numbers"
        in (tmp_path / "one" / "report.html").read_text()
    )


def test_channels_on_the_page(striate, file, photo, tmp_path):
    words = ("--visualize", "second 3,0", "--ablate", "second 3", "--method", "gradcam")
    out = tmp_path / "channels"
    result = striate("explain", f"{file}:Net", photo, *words, "--json", "--out", out)
    drawn = result.json["visualize"]
    assert [row["channel"] for row in drawn] == [3, 0]
    assert all(row["activation"] > row["random_activation"] for row in drawn)
    rows = result.json["ablate"]["replacements"]
    assert [row["replaced_by"] for row in rows] == ["zero", "mean"]
    assert len(result.json["ablate"]["classes"]) == 3
    page = (out / "report.html").read_text()
    assert "Feature visualization of second" in page
    assert "Ablation of channels" in page


def test_images_are_needed_and_must_be_images(
    striate, file, photo, tmp_path, shared_run
):
    assert "no image to explain" in striate("explain", f"{file}:Net").err
    text = tmp_path / "text.png"
    text.write_text("text")
    assert "not a readable image" in striate("explain", f"{file}:Net", text).err
    many = ["explain", f"{file}:Net", *[photo] * 7]
    assert "7 images; the maximum per page is 6" in striate(*many).err
    said = striate("explain", shared_run.path, photo, "--image-size", "9")
    assert "a run already has weights" in said.err


# --- in Python -----------------------------------------------------------------------


def test_st_explain(shared_run, shared_folder):
    path = next((shared_folder / "across").iterdir())
    result = st.explain(shared_run, path, target="across", against="down")
    assert result.target.text == "across rather than down"
    assert result.heatmap.shape == (8, 8)
    x = torch.randn(1, 8, 8)
    plain = st.explain(
        shared_run.model, x, target=1, method="layercam", sanity_checks=False
    )
    assert plain.sanity_checks is None
    with pytest.raises(SettingError, match="must be preprocessed"):
        st.explain(shared_run.model, path)


def test_five_channels_and_no_weights(tmp_path):
    """Five-channel images come from arrays; the page draws their mean."""
    import numpy as np

    pixels = np.stack([stripes(i % 2, i, 12, 12, 5) for i in range(60)])
    names = ["across", "down"] * 30
    data = st.load_data(st.from_arrays("five", pixels, names))
    model = nn.Sequential(
        nn.Conv2d(5, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    run = st.train(model, data, epochs=2, out=tmp_path / "run")
    from striate.workflows.explain.load_model import LoadedModel

    about = LoadedModel(
        name="five",
        model=run.model,
        preprocess=run.preprocess,
        labels=run.labels,
        run=run,
    )
    done = explain_images(about, out=tmp_path / "five")
    assert (tmp_path / "five" / "report.html").is_file()
    assert done.data["images"][0]["attributions"][0]["method"] == "CAM"
    in_notebook = done._repr_html_()
    assert "How reliable are these heatmaps?" in in_notebook
    assert 'href="five/report.html"' in in_notebook


def test_weights_are_for_named_networks(tmp_path):
    with pytest.raises(DataError):
        explain_images(load_model("tutorial_gray"), [tmp_path / "nothing.png"])
    about = load_model("28x28x1 > conv 3x3 4 > relu > dense 3")
    assert about.preprocess.mean == (0.5,)
    assert "meaningless" in " ".join(about.remarks)
