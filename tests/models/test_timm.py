"""Networks of timm: built, summarised, cut, frozen, planned and reused as ours are."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

import striate as st
from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.core.errors import WeightsError as NoWeightsError
from striate.core.files import read_json
from striate.finetune.cut_points import find_cut_points
from striate.finetune.freeze import freeze
from striate.finetune.split_model import cut_at, probe_batch
from striate.models import timm as room
from striate.models.catalogue import model_entry
from striate.models.weights import load_pretrained
from striate.run.create_model import create_model
from support.images import write_folder
from support.optional_packages import imported

# Two of them change the number of maps at a 1×1 behind the last average.
NAMES = ("resnet18", "mobilenetv3_small_050", "convnext_atto", "efficientnet_lite0")
QUICK = ("--epochs", "1", "--batch-size", "8", "--quiet", "--cache", "cache")


@pytest.fixture(scope="module")
def timm():
    return imported("timm")


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Two classes of coloured 32×32 pictures."""
    root = tmp_path_factory.mktemp("colours") / "stripes"
    return write_folder(root, count=16, size=(32, 32), channels=3)


def made(name, side=64, **given):
    chosen = {"num_classes": 3, "in_chans": 3, "image_size": side, "seed": 1}
    return create_model(f"timm:{name}", **{**chosen, **given})


@pytest.fixture
def weights(timm, tmp_path):
    """Write weights for ten classes of colour pictures; return the file."""

    def write(name):
        path = tmp_path / f"{name}.safetensors"
        save_file(made(name, num_classes=10, seed=7).state_dict(), path)
        return path

    return write


# --- names


def test_without_timm_the_extra_is_named(monkeypatch, refused, shared_folder):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="not installed") as caught:
        create_model("timm:resnet18")
    assert caught.value.fix == "pip install 'striate[timm]'"
    assert "striate[timm]" in refused(shared_folder, "--model", "timm:resnet18")


def test_a_name_that_timm_lacks(timm, striate):
    with pytest.raises(UnknownNameError, match="'convnext_ato'") as caught:
        model_entry("timm:convnext_ato")
    assert "timm:convnext_atto" in caught.value.fix
    with pytest.raises(UnknownNameError, match="no weights 'mine' of") as caught:
        model_entry("timm:resnet18.mine")
    assert "timm:resnet18.a1_in1k" in caught.value.fix
    assert "timm:resnet18" in striate("summary", "timm:resnet81").err


@pytest.mark.parametrize("name", ["hf-hub:a/b", "local-dir:/tmp", "a/b", "", "."])
def test_addresses_and_folders_are_no_names(timm, name):
    """timm would take them; then a settings file could fetch what it likes."""
    with pytest.raises(UnknownNameError, match="has no network"):
        create_model(f"timm:{name}")


# --- built


@pytest.mark.parametrize("name", NAMES)
def test_classes_channels_and_size_are_passed_on(timm, name):
    model = made(name, in_chans=1).eval()
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 3)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        again = made(name, in_chans=1).state_dict()
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(drawn, torch.rand(1))
    state = model.state_dict()
    assert all(torch.equal(state[key], again[key]) for key in state)
    other = made(name, in_chans=1, seed=2).state_dict()
    assert not all(torch.equal(state[key], other[key]) for key in state)


def test_a_network_for_one_size_is_built_for_it(timm, monkeypatch):
    assert made("test_vit", 96)(torch.zeros(1, 3, 96, 96)).shape == (1, 3)

    def create(name, **settings):
        raise AssertionError(f"{settings['img_size']} is odd")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(GeometryError, match=r"96×97×3: \(96, 97\) is odd") as caught:
        made("test_vit", (96, 97))
    assert caught.value.fix == "use the image size 160×160×3"


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_counts_as_torch_counts(timm, name):
    counter = FlopCounterMode(display=False)
    model = made(name).eval()
    with torch.no_grad(), counter:
        model(torch.zeros(1, 3, 64, 64))
    found = st.summary(f"timm:{name}", image_size=64, num_classes=3).audit
    assert 2 * found.macs == counter.get_total_flops()
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.uncounted_ops == {}


def test_it_is_listed_where_it_is_asked_for(timm, striate):
    (row,) = striate("models", "timm:resnet18", "--json").json
    assert row["parameters"] == 11_689_512
    assert row["input"] == "224×224×3"
    assert "apache-2.0" in row["what"]
    assert "timm:NAME" in striate("models", "resnet18").out


# --- reused


@pytest.mark.parametrize("name", NAMES)
def test_it_is_cut_frozen_and_climbed(timm, name):
    model, x = made(name).eval(), probe_batch((3, 64, 64))
    cut = cut_at(model, x)
    features = cut.features(model, x)
    assert torch.allclose(cut.head(features), model(x), atol=1e-5)
    assert features.shape[:2] == (2, model.head_hidden_size)
    cut_points = find_cut_points(model, x)
    assert len(cut_points.cuts) >= 4
    assert cut_points.cuts[-1].name == cut.name
    frozen = freeze(model, cut.backbone)
    model.train()(x).sum().backward()
    trainable = {n for n, p in model.named_parameters() if p.grad is not None}
    assert trainable == {f"{heads(model)}weight", f"{heads(model)}bias"}
    assert freeze(model, cut.backbone).sha256 == frozen.sha256  # statistics too


def heads(model):
    return f"{model.pretrained_cfg['classifier']}."


def test_where_it_is_no_chain_is_told(timm):
    with pytest.raises(SettingError, match="no simple chain") as caught:
        cut_at(made("test_vit", 160), probe_batch((3, 160, 160)), "patch_embed")
    assert "use one of: " in caught.value.fix


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_a_file_with_another_head_and_other_channels(timm, weights, name):
    path = weights(name)
    model = made(name, in_chans=1)
    first = model.state_dict()
    load_pretrained(model, path, head=False)
    theirs, ours = load_file(path), model.state_dict()
    changed = {key for key in ours if not torch.equal(ours[key], theirs[key])}
    stem = next(key for key, value in ours.items() if value.ndim == 4)
    assert {key for key in changed if not key.startswith(heads(model))} == {stem}
    assert torch.equal(ours[stem], theirs[stem].sum(1, keepdim=True))
    new = [key for key in ours if key.startswith(heads(model))]
    assert all(torch.equal(ours[key], first[key]) for key in new)
    with pytest.raises(NoWeightsError, match="do not fit") as caught:
        load_pretrained(model, path)
    assert "head=False" in caught.value.fix


def test_a_run_keeps_the_name_and_loads_again(timm, striate, shared_folder):
    words = "train", shared_folder, "--model", "timm:resnet18.a1_in1k"
    said = striate(*words, "--image-size", "32", *QUICK)
    assert said.code == 0, said.err
    path = Path("runs/train/stripes-timm-resnet18.a1_in1k")
    run = st.load_run(path)
    assert run.recipe.model == "timm:resnet18.a1_in1k"
    assert run.manifest["versions"]["timm"] == timm.__version__
    assert type(run.model).__module__ == "timm.models.resnet"
    answers = run.predict_subset(run.data.subset("test"))
    assert answers.metrics().loss == pytest.approx(run.scores["test"]["loss"])
    assert striate("evaluate", path).code == 0
    assert striate("summary", path, "--depth", "1").code == 0


def test_features_are_kept_and_a_head_learns(timm, striate, colours, weights):
    path = weights("resnet18")
    words = "transfer", colours, "--model", "timm:resnet18", "--pretrained", path
    said = striate(*words, *QUICK, "--image-size", "64", "--out", "one")
    assert said.code == 0, said.err
    run = st.load_run("one")
    assert run.manifest["transfer"]["width"] == 512
    assert run.manifest["transfer"]["computed"] == 32
    preprocess = run.preprocess  # timm's own, but for the size that was given
    assert preprocess.mean == (0.485, 0.456, 0.406)
    assert (preprocess.height, preprocess.resize) == (64, "crop")
    (note,) = [n for n in run.manifest["notes"] if "except for resizing" in n]
    assert "bicubic and cropped to the central 95.0%, here bilinear" in note
    before, after = load_file(path), run.model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in after if n[:3] != "fc.")
    assert striate(*words, *QUICK, "--image-size", "64", "--out", "two").code == 0
    assert st.load_run("two").manifest["transfer"]["cached"] == 32


def test_a_plan_is_made_and_done(timm, striate, colours, weights):
    path = weights("mobilenetv3_small_050")
    words = ("--model", "timm:mobilenetv3_small_050", "--pretrained", path)
    sizes = "--image-size", "32", "--normalize", "imagenet"
    words = ("transfer", colours, *words, *sizes, "--cut", "auto", *QUICK)
    said = striate(*words, "--out", "run")
    assert said.code == 0, said.err
    assert "Proposed: " in said.out
    assert len(read_json(Path("run/plan.json"))["probes"]) >= 4
    assert st.load_run("run").manifest["status"] == "done"


# --- fetched, where it is asked for by name


def test_published_weights_are_fetched_once(timm, monkeypatch, striate, colours):
    asked, real = [], timm.create_model

    def create(name, pretrained=False, **settings):
        asked.extend([name] if pretrained else [])
        torch.manual_seed(3)
        return real(name, **settings)

    monkeypatch.setattr(timm, "create_model", create)
    words = "train", colours, "--model", "timm:resnet18", "--pretrained"
    words = (*words, "timm:resnet18", "--image-size", "32", *QUICK, "--out")
    assert striate(*words, "one").code == 0
    assert striate(*words, "two").code == 0
    assert asked == ["resnet18"]
    (kept,) = Path("cache/weights").iterdir()
    assert kept.name == "timm-resnet18.a1_in1k.safetensors"
    assert (
        "timm's resnet18.a1_in1k (apache-2.0)"
        in st.load_run("one").manifest["notes"][-2]
    )


def test_without_internet_it_says_what_to_bring(timm, monkeypatch, refused, colours):
    def create(name, **settings):
        raise OSError("no route to host\nat length")

    monkeypatch.setattr(timm, "create_model", create)
    words = "--model", "timm:resnet18", "--pretrained", "timm:resnet18"
    said = refused(colours, *words)
    assert "could not fetch the weights of resnet18.a1_in1k: no route to host\n" in said
    assert "timm/resnet18.a1_in1k" in said
    assert "--pretrained" in said
    assert "the cache is off" in refused(colours, *words, "--cache", "off")
