"""`striate transfer`: cached features, heads, and the run folder."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import striate as st
from striate.core.errors import SettingError, StorageError
from striate.core.files import read_csv, read_json, write_json
from striate.data.cache.decoded_images import MARKER
from striate.data.cache.feature_cache import KEYS, ROWS, FeatureStore
from striate.run.prepare_run import load_recipe
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.workflows.transfer import heads
from striate.workflows.transfer import transfer as transfer_module
from striate.workflows.transfer.options import TransferOptions
from support.images import write_folder

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def words(shared_folder, source):
    given = (
        "transfer",
        shared_folder,
        "--model",
        "fast_small",
        "--pretrained",
        source.path,
    )
    return (*given, "--quiet", "--cache", "cache")


def facts(name):
    return read_json(Path(name) / "manifest.json")["transfer"]


def test_the_result_is_an_ordinary_run(striate, words, shared_folder):
    said = striate(*words, "--out", "run")
    assert said.code == 0, said.err
    assert said.out.startswith("run     run\n")
    run = st.load_run("run")
    assert run.manifest["status"] == "done"
    assert run.scores["test"]["accuracy"] > 0.8
    kept = run.predictions("test")
    again = run.predict_subset(
        run.data.subset("test")
    )  # from the images, through the whole
    assert again.paths == kept.paths
    assert abs(again.probs - kept.probs).max() < 1e-5
    record = run.manifest["train_accuracy"]  # from the features of the images
    score = run.evaluate("train")
    assert (record["accuracy"], record["count"]) == (score.accuracy, score.count)
    assert striate("evaluate", "run", "--json").code == 0
    answers = striate("predict", "run", shared_folder, "--json").json
    assert len(answers["predictions"]) == 40
    layers = striate("summary", "run", "--json").json["layers"]
    learns = {row["layer"]: row["trainable"] for row in layers}
    assert (learns["block1.conv"], learns["fc"]) == ("no", "yes")
    rows = read_csv(run.path / "penalties.csv")
    best = min(rows, key=lambda row: float(row["loss"]))
    assert facts("run")["penalty"] == float(best["penalty"])


def test_training_accuracy_with_test_time_augmentation(striate, words):
    """The features of the images are not those of their mirror images."""
    assert striate(*words, "--out", "run", "--tta", "flip").code == 0
    run = st.load_run("run")
    record = run.manifest["train_accuracy"]
    assert record["accuracy"] == run.evaluate("train").accuracy


def test_adding_features_updates_the_time_of_the_store(tmp_path):
    store = FeatureStore(tmp_path, {"network": "a"}, (2,))
    os.utime(store.folder / MARKER, (1, 1))
    store.add(["x"], torch.ones(1, 2))
    assert (store.folder / MARKER).stat().st_mtime > 1
    with pytest.raises(StorageError, match="another process removed 1 feature "):
        store.rows(["x", "y"])
    assert store.rows(["x"]).load().tolist() == [[1, 1]]


@pytest.mark.parametrize("weights", ["auto", "loss", "sampling"])
@pytest.mark.parametrize("head", [(), ("--head", "tuned", "--cut", "block2")])
def test_class_weights_of_transfer(striate, words, weights, head):
    given = *words, *head, "--epochs", "1", "--class-weights", weights
    said = striate(*given, "--out", "run")
    assert said.code == 0, said.err
    assert st.load_run("run").scores["test"]["balanced_accuracy"] > 0.8


def test_logistic_loss_with_class_weights(shared_folder):
    """Sampling becomes weights, since logistic regression uses all images at once."""
    recipe = Recipe(data=str(shared_folder), cache="off")
    data = load_recipe(recipe)
    subset = data.subset("train")
    some = (subset.labels == 0).nonzero().flatten().tolist()[:3]
    some += (subset.labels == 1).nonzero().flatten().tolist()
    uneven = replace(data, subsets={**data.subsets, "train": subset.take(some)})
    labels = uneven.subset("train").labels
    logits = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0))
    none, loss, sampling = (
        heads.logistic_loss(uneven, replace(recipe, class_weights=how))(logits, labels)
        for how in ("none", "loss", "sampling")
    )
    assert sampling == loss != none


def test_muon_with_a_tuned_head(striate, words):
    tuned = *words, "--head", "tuned", "--cut", "block1", "--epochs", "1"
    for name in ("adamw", "muon"):
        assert striate(*tuned, "--optimizer", name, "--out", name).code == 0
    one, other = (load_file(f"{n}/weights/best.safetensors") for n in ("adamw", "muon"))
    assert not torch.equal(one["block2.conv.weight"], other["block2.conv.weight"])


@pytest.mark.parametrize("head", ["trained", "tuned"])
def test_all_layers_can_be_trained(striate, words, head):
    """Apart from the whitening filters, which are computed."""
    given = *words, "--cut", "before whiten", "--head", head, "--unfreeze", "1"
    said = striate(*given, "--epochs", "3", "--out", "run")
    assert said.code == 0, said.err
    assert striate("evaluate", "run", "--json").code == 0
    assert striate(*words, "--out", "alone").code == 0
    one, other = (load_file(f"{n}/weights/best.safetensors") for n in ("run", "alone"))
    assert torch.equal(one["whiten.conv.weight"], other["whiten.conv.weight"])


def test_a_frozen_classifier_cannot_be_tuned(striate, words):
    said = striate(*words, "--head", "tuned", "--cut", "block1", "--freeze", "fc")
    assert said.code == 2
    assert "'fc' is frozen, but a tuned head must train this layer" in said.err


def test_batch_norm_adapts_on_batches_of_equal_size(striate, words, monkeypatch):
    sizes = []

    def adapt(tail, batches):
        sizes.extend(len(x) for x in batches)
        return 0

    monkeypatch.setattr(heads, "adapt_batch_norm", adapt)
    monkeypatch.setattr(heads, "MAX_EVALUATION_BATCH", 9)
    tuned = *words, "--head", "tuned", "--cut", "block1", "--epochs", "1"
    assert striate(*tuned, "--out", "run").code == 0
    assert sum(sizes) == read_json(Path("run/manifest.json"))["data"]["splits"]["train"]
    assert max(sizes) <= 9
    assert max(sizes) - min(sizes) <= 1


def test_training_images_of_one_group(striate, source, shared_folder):
    """One lot to train on and another to validate: no fold, but a head by steps."""
    paths = sorted(shared_folder.rglob("*.png"))
    lots = ("train", "val", "test")
    lines = [
        f"{path},{path.parent.name},{lots[i % 3]},lot {i % 3}"
        for i, path in enumerate(paths)
    ]
    Path("lots.csv").write_text("\n".join(["image_path,label,split,group", *lines]))
    words = "transfer", "lots.csv", "--model", "fast_small", "--pretrained", source.path
    words = *words, "--quiet", "--cache", "cache", "--epochs", "1"
    for head in ((), ("--head", "tuned", "--cut", "block2"), ("--cut", "auto")):
        said = striate(*words, *head, "--out", "run", "--overwrite")
        assert said.code == 2
        message = "all training images belong to one group"
        if "auto" in head:
            message = "no images are left to evaluate trials"
        assert message in said.err.replace("\n", " ")
    said = striate(*words, "--head", "trained", "--out", "trained")
    assert said.code == 0, said.err


def test_frozen_layers_keep_the_pretrained_weights(striate, words, source):
    assert striate(*words, "--in-chans", "3", "--out", "run").code == 0
    before = load_file(source.path / "weights/best.safetensors")
    after = load_file("run/weights/best.safetensors")
    body = {n for n in after if not n.startswith("fc")}
    assert all(torch.equal(before[n], after[n]) for n in body)
    assert not torch.equal(before["fc.weight"][:2], after["fc.weight"])


def test_features_are_computed_once(striate, words):
    assert striate(*words, "--out", "a").code == 0
    first = facts("a")
    assert (first["computed"], first["cached"]) == (40, 0)
    said = striate(*words, "--out", "b")
    assert "40 from cache" in said.out
    assert facts("b")["computed"] == 0
    one, other = (load_file(f"{name}/weights/best.safetensors") for name in "ab")
    assert all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    "change",
    [
        ("--resize", "pad", "--image-size", "16"),
        ("--mean", "0.1", "--std", "0.9"),
        ("--cut", "block2"),
        ("--in-chans", "3"),
    ],
)
def test_features_of_other_preprocessing_are_not_used(striate, words, change):
    assert striate(*words, "--image-size", "16", "--out", "a").code == 0
    extra = ("--image-size", "16") if "--image-size" not in change else ()
    head = ("--head", "trained", "--epochs", "1") if "--cut" in change else ()
    said = striate(*words, *extra, *change, *head, "--out", "b")
    if "block2" in change:  # a vector of the same numbers, under another name
        assert said.code == 0, said.err
    assert facts("b")["computed"] == 40


def test_features_of_other_weights_are_not_used(striate, words, source, tmp_path):
    assert striate(*words, "--out", "a").code == 0
    state = load_file(source.path / "weights/best.safetensors")
    last = state["block2.bn.running_var"]
    last[0] = torch.nextafter(last[0], torch.tensor(9.0))
    save_file(state, tmp_path / "other.safetensors")
    mine = list(words)
    mine[mine.index("--pretrained") + 1] = tmp_path / "other.safetensors"
    own = st.load_run("a").preprocess
    how = "--image-size", "12", "--mean", own.mean[0], "--std", own.std[0]
    said = striate(*mine, *map(str, how), "--out", "b")
    assert said.code == 0, said.err
    assert st.load_run("b").preprocess == own
    assert facts("b")["computed"] == 40


def test_only_new_images_are_computed(striate, words, tmp_path):
    folder = write_folder(tmp_path / "mine", count=12)
    mine = ("transfer", folder, *words[2:])
    assert striate(*mine, "--out", "a").code == 0
    write_folder(folder, count=15)
    assert striate(*mine, "--out", "b").code == 0
    assert facts("b")["computed"] == 6
    assert facts("b")["cached"] == 24


def test_transfer_without_a_cache(striate, words):
    mine = [*words[:-1], "off"]
    assert striate(*mine, "--out", "a").code == 0
    assert facts("a")["computed"] == 40


def test_augmented_views_are_computed_and_cached(striate, words):
    views = "--views", "3", "--augment", "flip"
    assert striate(*words, *views, "--out", "a").code == 0
    train = st.load_run("a").manifest["data"]["splits"]["train"]
    assert facts("a")["computed"] == 40 + 3 * train
    assert striate(*words, *views, "--out", "b").code == 0
    assert facts("b")["computed"] == 0
    assert "would be identical" in striate(*words, "--views", "1", "--out", "c").err
    mixed = "--views", "1", "--augment", "six"
    assert striate(*words, *mixed, "--seed", "3", "--out", "d").code == 0


def test_layers_behind_the_cut_point_are_trained(striate, words, source):
    settings = "--head", "trained", "--epochs", "3", "--batch-size", "8"
    said = striate(
        *words, "--cut", "block1", *settings, "--in-chans", "3", "--out", "a"
    )
    assert said.code == 0, said.err
    run = st.load_run("a")
    assert len(run.history) == 3
    before = load_file(source.path / "weights/best.safetensors")
    after = load_file("a/weights/best.safetensors")
    frozen = [n for n in after if n.startswith(("whiten", "block1"))]
    assert all(torch.equal(before[n], after[n]) for n in frozen)
    assert not torch.equal(before["block2.conv.weight"], after["block2.conv.weight"])
    again = run.predict_subset(run.data.subset("test")).probs
    assert abs(again - run.predictions("test").probs).max() < 1e-5


def test_invalid_flags_are_refused(striate, words, source):
    short = [w for w in words if w not in ("--pretrained", source.path)]
    assert "no published pretrained weights of" in striate(*short).err
    assert "no layer is called 'blok1'" in striate(*words, "--cut", "blok1").err
    assert (
        "a logistic head needs one linear layer"
        in striate(*words, "--cut", "block1").err
    )
    assert "no head is called 'svm'" in striate(*words, "--head", "svm").err
    assert "cannot be auto in transfer" in striate(*words, "--lr", "auto").err
    assert "selects all layers" in striate(*words, "--freeze", "fc").err
    Path("loop.yaml").write_text("ema: 0.9\n")
    assert "ema has no effect" in striate(*words, "--config", "loop.yaml").err
    assert striate(*words, "--out", "run").code == 0
    said = striate("train", "--resume", "run")
    assert "cannot be resumed" in said.err
    assert read_json(Path("run/manifest.json"))["status"] == "done"


def rows(count, seed=0):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def store_of(root, facts=None):
    return FeatureStore(root, facts or {"a": 1}, (4,))


def test_a_truncated_store_loses_only_its_end(tmp_path):
    store, keys = store_of(tmp_path), [f"k{i}" for i in range(9)]
    store.add(keys, rows(9))
    store.rows(keys)
    (segment,) = store.folder.glob(f"*{ROWS}")
    os.truncate(segment, 16 * 5 + 3)
    after = store_of(tmp_path)
    assert [key in after for key in keys] == [True] * 5 + [False] * 4
    (keys_file,) = store.folder.glob(f"*{KEYS}")
    os.truncate(keys_file, keys_file.stat().st_size // 9 * 2 + 7)
    after = store_of(tmp_path)
    assert [key in after for key in keys] == [True] * 2 + [False] * 7
    after.add(keys[2:], rows(9)[2:])
    assert torch.equal(after.rows(keys).load(), rows(9))


def test_a_damaged_row_is_not_used(tmp_path):
    store = store_of(tmp_path)
    store.add(["a", "b"], rows(2))
    store.rows(["a"])
    (segment,) = store.folder.glob(f"*{ROWS}")
    payload = bytearray(segment.read_bytes())
    payload[3] ^= 1
    segment.write_bytes(payload)
    after = store_of(tmp_path)
    assert ("a" in after, "b" in after) == (False, True)


def test_a_store_with_a_wrong_name_is_refused(tmp_path):
    store = store_of(tmp_path)
    marker = read_json(store.folder / MARKER)
    write_json(store.folder / MARKER, {**marker, "facts": {"a": 2}})
    with pytest.raises(StorageError, match="of another network"):
        store_of(tmp_path)


def test_two_processes_share_a_store(tmp_path):
    one, other = store_of(tmp_path), store_of(tmp_path)
    one.add(["a", "b"], rows(2))
    other.add(["b", "c"], rows(3)[1:])
    assert len(one.rows(["a"])) == len(other.rows(["b"])) == 1
    found = store_of(tmp_path).rows(["c", "a", "b"])
    assert torch.equal(found[torch.tensor([2, 0])], rows(3)[[1, 2]])


KILLED = """
import sys, time, torch
from pathlib import Path
from striate.data.cache import feature_cache as features
features._SECONDS_PER_SYNC = 0.0
store = features.FeatureStore(Path(sys.argv[1]), {"a": 1}, (4,))
draw = torch.Generator()
for i in range(10_000):
    store.add([f"k{i}"], torch.full((1, 4), float(i)))
    print(i, flush=True)
"""


def test_a_kill_leaves_whole_rows(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if int(line) >= 10:
            break
    time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = store_of(tmp_path)
    there = [i for i in range(10_000) if f"k{i}" in store]
    assert len(there) >= 10
    assert there == list(range(len(there)))
    found = store.rows([f"k{i}" for i in there]).load()
    assert torch.equal(found, torch.tensor(there).float()[:, None].expand(-1, 4))


def test_invalid_options_are_refused():
    with pytest.raises(SettingError, match="at least 0"):
        TransferOptions(views=-1)


@pytest.mark.charts
def test_the_report_shows_how_the_penalty_was_chosen(striate, words, monkeypatch):
    monkeypatch.setattr(transfer_module, "write_report", write_report)
    assert striate(*words, "--out", "run").code == 0
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "penalty was chosen by cross-validation" in page
    assert Path("run/plots/penalty.png").is_file()
    assert not Path("run/plots/loss.png").exists()


def test_a_head_with_a_hidden_layer(striate, words, shared_folder, source):
    """It learns from features alone; loads, predicts and is reused like any other."""
    words = *words, "--in-chans", "3"
    said = striate(*words, "--head-hidden", "16", "--epochs", "20", "--out", "run")
    assert said.code == 0, said.err
    run = st.load_run("run")
    assert (facts("run")["cut"], facts("run")["head"]) == ("before fc", "trained")
    assert run.scores["test"]["accuracy"] > 0.8
    names = [name for name in run.model.state_dict() if name.startswith("fc")]
    assert names == ["fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"]
    again = run.predict_subset(run.data.subset("test"))
    kept = run.predictions("test")
    assert abs(again.probs - kept.probs).max() < 1e-5
    before = load_file(source.path / "weights/best.safetensors")
    after = run.model.state_dict()
    body = [name for name in before if not name.startswith("fc")]
    assert all(torch.equal(before[name], after[name]) for name in body)
    assert len(striate("predict", "run", shared_folder, "--json").json["predictions"])
    # Its weights are reused: the body's, below a new head of either kind.
    for out, more in (
        ("dense", []),
        ("small", ["--head-hidden", "8", "--epochs", "2"]),
    ):
        said = striate(*words, "--pretrained", "run", *more, "--out", out)
        assert said.code == 0, said.err
        again = st.load_run(out).model.state_dict()
        assert all(torch.equal(before[name], again[name]) for name in body)


@pytest.mark.parametrize(
    "wrong", [["--cut", "auto"], ["--head", "tuned"], ["--head", "logistic"]]
)
def test_a_hidden_layer_needs_a_trained_head(striate, words, wrong):
    said = striate(*words, "--head-hidden", "16", *wrong)
    assert said.code == 2
    assert "use --head trained" in said.err


def test_a_hidden_layer_in_ordinary_training(striate, shared_folder):
    given = "--model", "tutorial_gray", "--in-chans", "1", "--head-hidden", "12"
    said = striate("train", shared_folder, *given, "--epochs", "1", "--out", "run")
    assert said.code == 0, said.err
    assert st.load_run("run").model.fc[0].out_features == 12
    again = striate("train", "--resume", "run", "--epochs", "2", "--quiet")
    assert again.code == 0, again.err


def test_head_hidden_is_refused_for_a_module():
    with pytest.raises(SettingError, match="cannot be used with a model object"):
        st.train(torch.nn.Flatten(), st.load_data("digits"), head_hidden=4)
