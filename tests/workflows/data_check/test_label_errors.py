"""D4: planted label errors are at the top of the ranking; no file is changed."""

import csv
from dataclasses import replace

import numpy as np
import pytest

import striate as api
from striate.core.errors import DataError
from striate.core.seeds import numpy_generator
from striate.data.check.check import check_dataset
from striate.data.check.label_errors import LABEL_ERROR
from striate.data.find_source import find_source
from striate.data.sources.source import Source, from_arrays
from striate.report.html import render_page
from striate.workflows.data_check import label_errors
from striate.workflows.data_check.as_json import as_dict
from striate.workflows.data_check.findings import data_check_blocks, data_check_page
from striate.workflows.data_check.label_errors import (
    FOLDS,
    choose_input,
    find_label_errors,
    label_error_folds,
)
from support.images import pil_image, snapshot, stripes, write_folder

SHARE = 0.05


def planted(source: Source, rows, seed=0):
    """Return some of a source's images, and where one label in twenty is wrong."""
    rng = numpy_generator(seed, "flips")
    labels = [source.records[i].label for i in rows]
    flipped = rng.choice(len(rows), round(SHARE * len(rows)), replace=False)
    for i in flipped:
        others = [name for name in source.labels.names if name != labels[i]]
        labels[i] = str(rng.choice(others))
    pixels = source.arrays[rows]
    return from_arrays("planted", pixels, labels, classes=source.labels), flipped


def found_in_top(order, flipped, share=0.1):
    """Return the share of planted flips in the top of a ranking."""
    top = set(order[: int(share * len(order))])
    return len(top & set(flipped.tolist())) / len(flipped)


def positions(result):
    return [row.position for row in result.label_errors.ranking()]


@pytest.fixture
def one_epoch(monkeypatch):
    """Train for one epoch where a test looks at no prediction."""
    monkeypatch.setattr(label_errors, "EPOCHS", (1, 1))


@pytest.fixture(scope="module")
def checked():
    """400 digits with 20 wrong labels, checked; read only."""
    source, flipped = planted(find_source("digits"), range(400))
    return find_label_errors(check_dataset(source, near=False)), flipped


def test_planted_flips_are_in_the_top_tenth(checked):
    result, flipped = checked
    assert found_in_top(positions(result), flipped) >= 0.8


def test_a_random_ranking_would_not_pass(checked):
    result, flipped = checked
    chances = [np.random.default_rng(k).permutation(400).tolist() for k in range(20)]
    assert max(found_in_top(order, flipped) for order in chances) < 0.5
    backwards = positions(result)[::-1]
    assert found_in_top(backwards, flipped) == 0


def test_the_ranking_holds_every_image(checked):
    result, _ = checked
    rows = list(result.label_errors.ranking())
    assert sorted(row.position for row in rows) == list(range(400))
    assert [row.rank for row in rows] == list(range(1, 401))
    assert all(row.label == result.items[row.position].record.label for row in rows)
    assert all(row.suggested_label != row.label for row in rows)
    assert result.label_errors.unchecked == 0


def test_the_finding_lists_the_suspected_images(checked):
    result, flipped = checked
    [finding] = [f for f in result.findings if f.kind == LABEL_ERROR]
    assert not result.ok
    assert finding.tone == "warning"
    members = [group.members[0] for group in finding.groups]
    assert members == [r.position for r in result.label_errors.ranking() if r.suspected]
    assert len(set(members) & set(flipped.tolist())) >= 0.8 * len(flipped)
    assert 10 <= result.label_errors.analysis.estimate <= 40  # 20 are
    assert finding.groups[0].note.startswith("label ")


def test_the_same_again(one_epoch):
    source, _ = planted(find_source("digits"), range(60))
    first, again = (
        find_label_errors(check_dataset(source, near=False)).label_errors.analysis
        for _ in range(2)
    )
    assert (first.probs == again.probs).all()


def test_no_fold_is_predicted_by_a_network_trained_on_it(one_epoch, monkeypatch):
    """Were each network to learn its own fold too, the flips would be remembered."""
    from striate.workflows.data_check import cross_validation

    splits = []
    real = cross_validation.fit

    def fit(model, optimizer, train, val, *words, **options):
        splits.append((set(train.subset.paths), set(val.subset.paths)))
        return real(model, optimizer, train, val, *words, **options)

    monkeypatch.setattr(cross_validation, "fit", fit)
    source, _ = planted(find_source("digits"), range(60))
    result = check_dataset(source, near=False)
    find_label_errors(result)
    all_paths = {item.record.path for item in result.items}
    assert len(splits) == FOLDS
    assert all(train | val == all_paths and not train & val for train, val in splits)
    assert set().union(*(val for _, val in splits)) == all_paths


def test_duplicates_and_groups_are_in_one_fold():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    pixels[30:40] = pixels[:10]  # some of them under another label
    source = from_arrays("copied", pixels, ["a", "b", "c"] * 20)
    grouped = [
        replace(r, group=f"g{i // 5}") if i >= 40 else r
        for i, r in enumerate(source.records)
    ]
    source = replace(source, records=tuple(grouped))
    result = check_dataset(source, near=False)
    for seed in range(5):
        folds = label_error_folds(result, seed)
        assert (folds[30:40] == folds[:10]).all()
        assert all(len(set(folds[i : i + 5])) == 1 for i in range(40, 60, 5))
        assert set(folds) == set(range(FOLDS))


def test_a_class_in_one_fold_only_is_not_checked():
    pixels = np.random.default_rng(0).integers(0, 99, (41, 8, 8), np.uint8)
    pixels[20:40] += 120
    source = from_arrays("odd", pixels, ["low"] * 20 + ["high"] * 20 + ["lone"])
    result = find_label_errors(check_dataset(source, near=False))
    assert result.label_errors.unchecked == 1
    last = list(result.label_errors.ranking())[-1]
    assert (last.label, last.suggested_label, last.suspected) == ("lone", None, False)
    [note] = [f for f in result.findings if f.kind == "unchecked-labels"]
    assert note.what == "1 label could not be checked"
    assert not [f for f in result.findings if f.kind == LABEL_ERROR and f.groups]


def test_one_class_or_none_is_not_checked(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 99, (5, 8, 8), np.uint8)
    result = find_label_errors(check_dataset(from_arrays("one", pixels, ["a"] * 5)))
    assert result.label_errors.unchecked == 5
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "set/a/x.png").write_bytes(b"")
    empty = find_label_errors(check_dataset(tmp_path / "set"))
    assert list(empty.label_errors.ranking()) == []
    assert render_page(data_check_page(empty))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 5, 1), "8×8×1"), ((90, 9, 3), "64×9×3"), ((9, 12, 5), "9×12×5")],
)
def test_inputs_are_small_and_never_too_small(shape, expected, one_epoch):
    pixels = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    result = check_dataset(from_arrays("x", pixels, ["a", "b"] * 2), near=False)
    assert str(choose_input(result).spec) == expected
    assert find_label_errors(result).label_errors.unchecked == 0


@pytest.fixture
def photos(tmp_path):
    """Two classes of 30 stripes in files; one stands in the wrong folder."""
    root = write_folder(tmp_path / "photos", count=30)
    pil_image(stripes(0, 999)).save(root / "down/wrong.png")
    return root


def test_the_command_line(striate, photos, tmp_path):
    before = snapshot(photos)
    words = ("--near", "off", "--ranking", "out/rank.csv", "--html", "out/page.html")
    output = striate("data", "check", photos, "--labels", *words)
    assert snapshot(photos) == before
    assert output.code == 1
    assert "1 suspected label error in 61 labels; estimated" in output.out
    assert "down/wrong.png" in output.out
    text = " ".join(output.out.split())
    assert "Some of these labels are wrong" in text
    assert "Used: the network tutorial_gray, 20 epochs each, because images of" in text
    assert "ranking out/rank.csv" in output.out
    with open(tmp_path / "out/rank.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 61
    assert rows[0]["image_path"] == "down/wrong.png"
    assert (rows[0]["label"], rows[0]["suggested_label"]) == ("down", "across")
    assert [row["suspected"] for row in rows] == ["True"] + ["False"] * 60
    page = (tmp_path / "out/page.html").read_text(encoding="utf-8")
    assert "Suspected label errors" in page
    assert "label down, predicted across, " in page
    assert "5-fold cross-validation of the network " in page


def test_json(striate, photos):
    words = ("--near", "off", "--labels", "--json")
    output = striate("data", "check", photos, *words)
    assert (output.code, output.err) == (1, "")
    labels = output.json["labels"]
    assert (labels["checked"], labels["suspected"], labels["folds"]) == (61, 1, 5)
    assert labels["confusions"][0]["suggested_label"] == "across"
    ranks = sorted(file["label_check"]["rank"] for file in output.json["files"])
    assert ranks == list(range(1, 62))
    [wrong] = [f for f in output.json["files"] if f["label_check"]["suspected"]]
    assert wrong["image_path"] == "down/wrong.png"


def test_exit_code_0_without_suspected_labels(striate, tmp_path):
    root = write_folder(tmp_path / "photos", count=30)
    output = striate("data", "check", root, "--near", "off", "--labels")
    assert output.code == 0
    assert "no label errors suspected in 60 labels" in output.out


def test_a_ranking_needs_labels(striate, photos):
    output = striate("data", "check", photos, "--ranking", "rank.csv")
    assert output.code == 2
    assert "add --labels" in output.err


def test_progress_counts_training_images(photos, one_epoch):
    progress = []
    result = check_dataset(photos, near=False)
    checked = find_label_errors(
        result, tick=lambda done, total: progress.append((done, total))
    )
    assert progress[-1] == (4 * 61 * checked.label_errors.epochs,) * 2
    assert progress == sorted(progress)


def test_in_python(photos):
    result = api.check_data(photos, near=False, labels=True)
    assert result.label_errors.labels_of(next(result.label_errors.ranking()).position)[
        :2
    ] == (
        "down",
        "across",
    )
    assert api.check_data(photos, near=False).label_errors is None
    assert "labels" not in as_dict(api.check_data(photos, near=False))
    assert len(data_check_blocks(result)) > len(
        data_check_blocks(api.check_data(photos, near=False))
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_all_digits(seed):
    source, flipped = planted(find_source("digits"), range(1797), seed)
    result = find_label_errors(check_dataset(source, near=False))
    assert found_in_top(positions(result), flipped) >= 0.8


@pytest.mark.slow
def test_ten_thousand_of_fashion_mnist():
    try:
        whole = find_source("fashion-mnist")
    except DataError:
        pytest.skip("fashion-mnist is not installed")
    rows = [i for i, record in enumerate(whole.records) if record.split == "test"]
    source, flipped = planted(whole, rows)
    result = find_label_errors(check_dataset(source, near=False))
    assert len(rows) == len(result.items) == 10_000
    assert found_in_top(positions(result), flipped) >= 0.8
