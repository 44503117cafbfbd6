"""`--progressive-resize`: trained on small images first, evaluated at full size."""

import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import GeometryError, SettingError
from striate.core.files import read_json
from striate.data.batches import Batches
from striate.engine.checkpoint_store import CheckpointStore
from striate.run.create_model import create_model
from striate.run.prepare_run import check_image_sizes
from striate.run.recipe import Recipe
from striate.workflows.train import build_job
from striate.workflows.train.autotune import make_laps
from striate.workflows.train.train import train_recipe
from support.images import write_folder
from support.stopped_runs import stopped, whole

CPU = torch.device("cpu")
SETTINGS = {
    "progressive_resize": 0.5,
    "image_size": 32,
    "model": "cifar_resnet20",
    "epochs": 4,
}
SAME = ("results.csv", "events.jsonl", "predictions_test.csv")

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos")


def contents(run):
    files = {name: (run / name).read_bytes() for name in SAME}
    return files | CheckpointStore(run / "weights/last").newest()[0].files


@pytest.fixture
def seen(monkeypatch):
    """Record the image sizes in training and in evaluation."""
    met = {"train": [], "judge": []}
    real = nn.Conv2d.forward

    def forward(self, x):
        if self.in_channels == 1:
            met["train" if self.training else "judge"].append(x.shape[-1])
        return real(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    return met


@pytest.mark.parametrize("step", [1, 5, 7])
def test_resume_is_exact(photos, striate, step):
    run = stopped(photos, step=step, **SETTINGS)
    said = striate("train", "--resume", run, "--quiet")
    assert said.code == 0
    assert "exact: yes" in said.out
    assert contents(run) == contents(whole(photos, **SETTINGS))


def test_trained_on_small_images_evaluated_at_full_size(photos, seen):
    run = train_recipe(
        Recipe(data=str(photos), batch_size=8, in_chans=1, **SETTINGS), quiet=True
    )
    tried = seen["train"][:3]  # before anything is written; the last: the forecast
    assert tried == [16, 32, 32]
    learned = seen["train"][3:]
    steps = len(learned) // 4
    assert learned == [16] * 2 * steps + [32] * 2 * steps
    assert set(seen["judge"]) == {32}
    notes = read_json(run.path / "manifest.json")["notes"]
    assert "progressive resizing: 16×16 in epochs 1–2, 32×32 in epochs 3–4" in notes
    seen["judge"].clear()
    run.evaluate()
    st.predict(run, [photos])
    assert set(seen["judge"]) == {32}


def test_off_is_the_default(photos, monkeypatch):
    plain = {**SETTINGS, "progressive_resize": 1.0}
    del plain["progressive_resize"]
    one = contents(whole(photos, "one", **plain))
    monkeypatch.setattr(
        build_job, "resized_batches", lambda batches, data, recipe: batches
    )
    assert contents(whole(photos, "other", progressive_resize=1.0, **plain)) == one


def test_a_model_of_fixed_size_is_refused(photos, refused):
    said = refused(
        photos,
        "--model",
        "tutorial_gray",
        "--image-size",
        "32",
        "--progressive-resize",
        ".5",
    )
    assert "cannot train on 16×16 images of --progressive-resize" in said
    assert "layer fc" in said
    assert "mobilenet_v2" in said


def test_too_small_images_are_refused(striate):
    said = striate(
        "train", "digits", "--progressive-resize", "0.5", "--model", "cifar_resnet20"
    )
    assert said.code == 2
    assert "images of 8×8 are too small to start at 0.5 of the size" in said.err
    for wrong in (0, 1.5, -1):
        with pytest.raises(SettingError, match="progressive_resize must be"):
            Recipe(data="digits", progressive_resize=wrong)


def test_auxiliary_heads_are_checked_too():
    model = create_model("googlenet", num_classes=3, image_size=128, seed=0)
    check_image_sizes(model, 3, [(128, 128)], CPU)
    with pytest.raises(GeometryError) as caught:
        check_image_sizes(model, 3, [(96, 96)], CPU)
    assert "aux" in caught.value.where


def test_a_blur_with_too_small_input_is_named():
    model = create_model("antialiased_resnet18", num_classes=3, image_size=32, seed=0)
    with pytest.raises(GeometryError) as caught:
        check_image_sizes(model, 3, [(32, 32), (16, 16)], CPU)
    assert caught.value.where == "layer layer4.0.blur"


def test_the_size_check_leaves_the_model_unchanged():
    model = create_model("mobilenet_v2", num_classes=3, image_size=32, seed=0)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    check_image_sizes(model, 3, [(32, 32), (48, 48)], CPU)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    after = model.state_dict()
    assert all(torch.equal(v, after[n]) for n, v in before.items())
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())


def test_macs_by_image_size(monkeypatch):
    data = st.load_data("digits", image_size=32)
    model = create_model("cifar_resnet20", in_chans=1, image_size=32)
    recipe = Recipe(data="digits", batch_size=4, precision="fp32", **SETTINGS)
    laps = make_laps(model, data, recipe, quiet=True)
    full, small = laps.macs[-1], laps.macs[0]
    assert laps.macs == (small, small, full, full)
    assert full / small == pytest.approx(4, rel=0.01)
    laps.peak_flops = 1e9
    assert laps.mfu(1) == pytest.approx(6 * small / 1e9)
    assert laps.mfu(1, epochs=4) == pytest.approx(6 * (small + full) / 2e9)
    fed = laps.time_batches(
        Batches(subset=data.subset("val"), preprocess=data.preprocess, batch_size=512)
    )
    fed(2)
    assert laps.mfu(1) == pytest.approx(6 * full / 1e9)
