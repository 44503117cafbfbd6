"""`striate export --to bundle` and `striate bundle`: write, show, replay, unpack."""

import json
import shutil
import subprocess

import numpy as np
import pytest

import striate as st
from striate.core.errors import RunError, SettingError
from striate.exporters.bundle.errors import BundleError
from striate.exporters.bundle.read import open_bundle
from striate.run.parse_settings import make_recipe
from striate.workflows.bundle import verify
from striate.workflows.bundle.verify import verify_bundle
from support.photo_folder import write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A run; look, do not touch."""
    settings = {"image_size": 20, "resize": "crop", "epochs": 2, "batch_size": 8}
    sketch = "20x20x3 > conv 3x3 8 same > bn > pool 2 > conv 3x3 8 same > dense 2"
    recipe = make_recipe({"data": str(photos), "model": sketch, **settings})
    return st.train_recipe(
        recipe, out=tmp_path_factory.mktemp("run") / "photos", quiet=True
    )


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    return st.export(run, tmp_path_factory.mktemp("bundle") / "photos.striate").path


def test_a_bundle_predicts_as_its_run(run, bundle, photos):
    files = sorted(photos.rglob("*.jpg"))
    expected = run.predict(files).predictions
    predictions = st.load_bundle(bundle).predict(files).predictions
    for a, b in zip(predictions, expected, strict=True):
        assert a.pred == b.pred
        assert np.allclose(list(a.probs.values()), list(b.probs.values()), atol=1e-6)


def test_a_bundle_evaluates_and_explains(striate, run, bundle, photos, tmp_path):
    done = striate("evaluate", bundle, "--data", photos, "--json")
    own = striate("evaluate", run.path, "--data", photos, "--json")
    assert done.json["accuracy"] == own.json["accuracy"]
    image = next(photos.rglob("*.jpg"))
    out = tmp_path / "explained"
    assert striate("explain", bundle, image, "--out", out).code == 0
    assert (out / "report.html").is_file()
    assert striate("predict", bundle, image).code == 0
    refused = striate("evaluate", bundle)
    assert refused.code == 2
    assert "--data" in refused.err
    assert striate("predict", bundle, image, "--model", "lenet5").code == 2


def test_the_replay_on_this_machine(striate, bundle):
    check = verify_bundle(bundle)
    assert check.passed
    names = [stage.stage for stage in check.stages]
    assert names[0] == "decode and resize"
    assert names[-1] == "targets/model.onnx"
    assert striate("bundle", "verify", bundle).code == 0


@pytest.mark.parametrize("stage", ["decode and resize", "logits"])
def test_another_machine_is_named(striate, bundle, monkeypatch, stage):
    """A decoder that gives other pixels, and arithmetic that gives other logits."""
    if stage == "logits":
        logits = verify.NetworkPipeline.logits
        monkeypatch.setattr(
            verify.NetworkPipeline, "logits", lambda self, x: logits(self, x) + 0.01
        )
    else:
        decode = verify.file_to_input
        monkeypatch.setattr(verify, "file_to_input", lambda *args: decode(*args) ^ 1)
    done = striate("bundle", "verify", bundle)
    assert done.code == 1
    assert f"'{stage}'" in done.out


def test_the_contents(striate, run, bundle, tmp_path):
    shown = striate("bundle", "show", bundle)
    assert "center, corner" in shown.out
    facts = striate("bundle", "show", bundle, "--json").json
    assert facts["classes"] == ["center", "corner"]
    assert facts["provenance"]["run"] == "photos"
    assert facts["certificate"]["network"]["passed"]
    assert facts["certificate"]["model.onnx"]["passed"]
    accuracy = facts["provenance"]["metrics"]["val"]["accuracy"]
    assert accuracy == run.scores["val"]["accuracy"]
    folder = tmp_path / "files"
    assert striate("bundle", "extract", bundle, "--out", folder).code == 0
    assert json.loads((folder / "classes.json").read_text())["names"]
    assert "95 % interval" in (folder / "card.md").read_text()
    assert striate("bundle", "extract", bundle, "--out", folder).code == 2


def test_the_same_bytes_twice(run, bundle, tmp_path):
    again = st.export(run, tmp_path / "photos.striate").path
    assert again.read_bytes() == bundle.read_bytes()


def test_a_damaged_bundle_is_refused_everywhere(striate, bundle, photos, tmp_path):
    damaged = tmp_path / "damaged.striate"
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    image = next(photos.rglob("*.jpg"))
    for words in (
        ("bundle", "show", damaged),
        ("bundle", "verify", damaged),
        ("bundle", "extract", damaged, "--out", tmp_path / "x"),
        ("predict", damaged, image),
        ("explain", damaged, image),
        ("evaluate", damaged, "--data", photos),
    ):
        done = striate(*words)
        assert done.code == 2
        assert "damaged.striate" in done.err.replace("\n", "")
    assert sorted(tmp_path.iterdir()) == [damaged]


def test_class_names_cannot_change_the_terminal(striate, tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (60, 8, 8), np.uint8)
    names = ["\x1b[2Jred", "a\nb"]
    data = st.load_data(
        st.from_arrays("odd", images, [names[i % 2] for i in range(60)])
    )
    model = st.create_model("8x8x1 > conv 3x3 4 > dense 2")
    run = st.train(model, data, epochs=1, out=tmp_path / "run")
    path = st.export(run, tmp_path / "odd.striate").path
    assert "\x1b" not in striate("bundle", "show", path).out
    assert len(open_bundle(path).golden_names) > 0
    assert verify_bundle(path).passed


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is missing")
def test_a_signed_bundle(striate, run, tmp_path):
    pytest.importorskip("cryptography")
    key, public = tmp_path / "key", tmp_path / "key.pub"
    subprocess.run(["minisign", "-G", "-W", "-s", key, "-p", public], check=True)
    path = tmp_path / "signed.striate"
    result = st.export(run, path, sign=key)
    assert [each.name for each in result.paths] == [path.name, f"{path.name}.minisig"]
    assert striate("bundle", "verify", path, "--key", public).code == 0
    subprocess.run(["minisign", "-V", "-m", path, "-p", public], check=True)
    other, other_public = tmp_path / "other", tmp_path / "other.pub"
    command = ["minisign", "-G", "-W", "-s", other, "-p", other_public]
    subprocess.run(command, check=True)
    with pytest.raises(BundleError, match="key"):
        verify_bundle(path, key=other_public)
    with pytest.raises(SettingError, match="bundle"):
        st.export(run, tmp_path / "net.onnx", sign=key)


def test_an_existing_bundle_is_kept(run, bundle):
    with pytest.raises(RunError, match="exists"):
        st.export(run, bundle)
