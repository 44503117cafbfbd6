"""`--pretrained` and `--freeze` on a run: what is taken, kept, recorded and refused."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import striate as st
from striate.core.errors import SettingError, WeightsError
from striate.core.files import hash_file, read_json, write_json
from striate.engine.checkpoint_store import CheckpointStore
from striate.run.pretrained import find_weights, read_state
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.workflows.train import run_job
from striate.workflows.train.train import train_recipe
from support.stopped_runs import ask_before

BODY = ("--freeze", "whiten,block1", "--freeze", "block2")
QUICK = ("--epochs", "2", "--batch-size", "8", "--quiet")


pytestmark = pytest.mark.usefixtures("no_report")


def test_frozen_layers_are_bit_identical_and_shown(striate, shared_folder, source):
    words = "train", shared_folder, "--model", "fast_small", "--pretrained", source.path
    said = striate(*words, *BODY, *QUICK, "--out", "run")
    assert said.code == 0, said.err
    manifest = read_json(st.load_run("run").path / "manifest.json")
    before = load_file(source.path / "weights/best.safetensors")
    after = load_file("run/weights/best.safetensors")
    same = {n for n in before if n in after and torch.equal(before[n], after[n])}
    # Color became gray: all that is frozen but the adapted first convolution.
    assert {n for n in after if n.startswith("block")} <= same
    assert torch.equal(
        after["whiten.conv.weight"], before["whiten.conv.weight"].sum(1, keepdim=True)
    )
    assert not any(n.startswith("fc") for n in same)
    digest = manifest["frozen"]["sha256"]
    assert f"{digest[:16]}\n" in said.out
    assert f"frozen  weights are unchanged (hash {digest[:16]})" in said.out
    assert manifest["pretrained"]["sha256"] == hash_file(
        source.path / "weights/best.safetensors"
    )
    assert manifest["pretrained"]["head"] == "new"
    assert any("sums its weights over 3 channels" in n for n in manifest["notes"])
    summary = striate("summary", "run", "--json").json
    learns = {row["layer"]: row["trainable"] for row in summary["layers"]}
    assert learns["block1.conv"] == "no"
    assert learns["fc"] == "yes"


def test_preprocessing_is_the_weights_own_unless_given(shared_folder, source):
    recipe = Recipe(
        data=str(shared_folder),
        model="fast_small",
        pretrained=str(source.path),
        epochs=1,
    )
    own = train_recipe(recipe, out=None, quiet=True).preprocess
    theirs = source.preprocess
    assert (own.height, own.width, own.channels) == (12, 12, 1)
    assert own.mean == (round(sum(theirs.mean) / 3, 6),)
    given = Recipe(
        data=str(shared_folder),
        model="fast_small",
        pretrained=str(source.path),
        epochs=1,
        mean=(0.25,),
        std=(0.5,),
        resize="pad",
        in_chans=3,
    )
    own = train_recipe(given, quiet=True).preprocess
    assert (own.mean, own.std, own.resize) == ((0.25,) * 3, (0.5,) * 3, "pad")


def test_the_head_is_loaded_if_the_classes_are_the_same(striate, source):
    words = "train", source.origin, "--model", "fast_small", "--pretrained", source.path
    said = striate(*words, "--freeze", "*,fc", *QUICK)
    assert "no layer is left to train" in said.err
    said = striate(*words, "--freeze", "block*,fc,whiten", *QUICK)
    assert "no layer is left to train" in said.err
    said = striate(*words, "--freeze", "block*,fc", *QUICK, "--out", "again")
    assert said.code == 0, said.err
    after = load_file("again/weights/best.safetensors")
    before = load_file(source.path / "weights/best.safetensors")
    assert torch.equal(after["fc.weight"], before["fc.weight"])
    assert "the head is loaded too, because the classes are equal" in said.out


def test_resume_is_exact_with_frozen_and_pretrained(striate, shared_folder, source):
    words = ("train", shared_folder, "--model", "fast_small", "--save-every", "0")
    words = (*words, "--pretrained", source.path, *BODY, *QUICK)
    assert striate(*words, "--out", "whole").code == 0
    with pytest.MonkeyPatch.context() as patch:
        ask_before(2, patch)
        assert striate(*words, "--out", "run").code == 130
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 0, said.err
    assert "exact: yes" in said.out
    for name in ("results.csv", "events.jsonl", "weights/best.safetensors"):
        assert hash_file(st.load_run("run").path / name) == hash_file(
            st.load_run("whole").path / name
        )
    whole, again = (
        CheckpointStore(st.load_run(r).path / "weights/last") for r in ("whole", "run")
    )
    assert whole.newest()[0].files == again.newest()[0].files
    said = striate("train", "--resume", "run", "--freeze", "block1")
    assert "freeze cannot change" in said.err


def test_resume_needs_the_same_weights(striate, shared_folder, source, tmp_path):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes((source.path / "weights/best.safetensors").read_bytes())
    words = ("train", shared_folder, "--model", "fast_small", "--image-size", "12")
    assert striate(*words, "--pretrained", mine, *QUICK, "--out", "run").code == 0
    shutil.rmtree("run/weights/last")
    # As a run that was killed before its first checkpoint: a finished one is kept.
    record = read_json(Path("run/manifest.json"))
    write_json(Path("run/manifest.json"), record | {"status": "running"})
    state = load_file(mine)
    save_file({n: t + 1 if n == "fc.bias" else t for n, t in state.items()}, mine)
    said = striate("train", "--resume", "run", "--quiet")
    assert said.code == 2
    assert "the weights file changed" in said.err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s | {"fc.weight": s["fc.weight"] * float("nan")}, "NaN"),
        (lambda s: s | {"block1.conv.weight": torch.zeros(1)}, "do not fit"),
        (lambda s: {f"x.{n}": t for n, t in s.items()}, "is missing"),
    ],
)
def test_weights_that_are_not_right_are_refused(
    refused, shared_folder, source, tmp_path_factory, spoil, words
):
    path = tmp_path_factory.mktemp("bad") / "bad.safetensors"
    save_file(spoil(load_file(source.path / "weights/best.safetensors")), path)
    size = "--image-size", "12", "--in-chans", "3"
    said = refused(shared_folder, "--model", "fast_small", "--pretrained", path, *size)
    assert words in said


def test_a_cut_file_is_damaged(refused, shared_folder, source, tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / "cut.safetensors"
    path.write_bytes((source.path / "weights/best.safetensors").read_bytes()[:5000])
    said = refused(shared_folder, "--model", "fast_small", "--pretrained", path)
    assert "the file is damaged" in said


def test_weights_of_another_network(refused, shared_folder, source, tmp_path_factory):
    """Of a run it is known which; of a file, only what is in it."""
    said = refused(
        shared_folder, "--model", "tutorial_gray", "--pretrained", source.path
    )
    assert "these weights are for fast_small, not for tutorial_gray" in said
    assert "use --model fast_small" in said
    file = source.path / "weights/best.safetensors"
    path = shutil.copy(file, tmp_path_factory.mktemp("bare") / "a.safetensors")
    said = refused(shared_folder, "--model", "tutorial_gray", "--pretrained", path)
    assert "do not fit" in said


def test_a_network_of_the_same_names_and_shapes_is_another(shared_folder, tmp_path):
    """A plain one computes something else with the weights of one with shortcuts."""
    first = Recipe(
        data=str(shared_folder), model="cifar_plain20", epochs=1, image_size=16
    )
    run = train_recipe(first, out=tmp_path / "run", quiet=True)
    second = replace(first, model="cifar_resnet20", pretrained=str(run.path))
    with pytest.raises(WeightsError, match="are for cifar_plain20, not for cifar_res"):
        train_recipe(second, out=tmp_path / "two", quiet=True)


def test_levels_are_the_weights_own_unless_given(shared_folder, tmp_path):
    """A mean that was measured with white at 4095 says nothing of another white."""
    first = Recipe(data=str(shared_folder), model="fast_small", epochs=1)
    first = replace(first, white_level=4095, background=7)
    run = train_recipe(first, out=tmp_path / "run", quiet=True)
    second = replace(first, white_level=None, background=None, pretrained=str(run.path))
    own = train_recipe(second, quiet=True).preprocess
    assert own == run.preprocess
    given = train_recipe(replace(second, white_level=255, background=0), quiet=True)
    assert (given.preprocess.white_level, given.preprocess.background) == (255, 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.json", "3", "classes.json is damaged"),
        ("classes.json", "[", "classes.json is not JSON"),
        ("preprocess.json", "[]", "preprocess.json is damaged"),
        ("preprocess.json", None, "preprocess.json is missing"),
    ],
)
def test_a_damaged_run_is_named(
    refused, shared_folder, source, tmp_path_factory, name, text, message
):
    run = tmp_path_factory.mktemp("damaged") / "broken"
    shutil.copytree(source.path, run)
    (run / name).unlink()
    if text is not None:
        (run / name).write_text(text)
    said = refused(shared_folder, "--model", "fast_small", "--pretrained", run)
    assert message in said
    assert f"broken/{name}" in said


def test_a_name_too_long_for_any_file(refused, shared_folder):
    assert "cannot be read" in refused(shared_folder, "--pretrained", "a" * 5000)


def test_words_that_mean_no_weights(refused, shared_folder):
    said = refused(shared_folder, "--pretrained", "mobilnet_v2")
    assert "no pretrained weights are called 'mobilnet_v2'" in said
    assert "did you mean mobilenet_v2" in said


def test_patterns_that_freeze_nothing(refused, shared_folder):
    said = refused(shared_folder, "--model", "fast_small", "--freeze", "blok1")
    assert "no layer matches 'blok1', so nothing is frozen" in said
    assert "did you mean block1" in said


def test_a_network_that_is_an_object_loads_its_own(shared_folder):
    data = st.load_data(shared_folder)
    with pytest.raises(SettingError, match="cannot be used with a model object"):
        st.train(nn.Identity(), data, pretrained="x")


def test_an_object_frozen_by_hand_stays_so(shared_folder):
    data = st.load_data(shared_folder)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 2),
    )
    model[:2].requires_grad_(False)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    run = st.train(model, data, epochs=2, batch_size=8, quiet=True)
    after = model.state_dict()
    assert all(torch.equal(after[n], before[n]) for n in after if n[0] in "01")
    assert not torch.equal(after["4.weight"], before["4.weight"])
    assert run.manifest["frozen"]["layers"] == ["0", "1"]


def test_a_pickle_is_read_once_and_kept_as_safetensors(tmp_path):
    state = {"a": torch.ones(3)}
    path = tmp_path / "a.pth"
    saved = {"state_dict": state, "options": argparse.Namespace()}
    torch.save(saved, path)  # noqa: TID251 - to make the file
    weights = find_weights(path)
    with pytest.raises(WeightsError, match=r"such as argparse\.Namespace; no code ran"):
        read_state(weights)
    assert torch.equal(read_state(weights, trust=True)["a"], state["a"])
    assert torch.equal(read_state(weights)["a"], state["a"])  # its copy is safe
    assert weights.preprocess is None


def test_public_weights_are_listed(striate):
    rows = {row["name"]: row for row in striate("models", "--weights", "--json").json}
    assert rows["mobilenet_v2"]["sha256"].startswith("b0353104")
    assert "ImageNet" in rows["mobilenet_v2"]["licence"]
    said = striate("models", "--weights", "resnet")
    assert "resnet18-f37072fd.pth" in said.out
    assert "mobilenet" not in said.out


def test_a_frozen_run_is_reported(striate, shared_folder, source, monkeypatch):
    monkeypatch.setattr(run_job, "write_report", write_report)
    words = "train", shared_folder, "--model", "fast_small", "--pretrained", source.path
    said = striate(*words, *BODY, *QUICK, "--out", "run")
    assert said.code == 0, said.err
    page = st.load_run("run").path / "report.html"
    assert "sums its weights over 3 channels" in page.read_text(encoding="utf-8")
