"""D4: planted label flips stand at the top of the ranking, and nothing is touched."""

import csv
from dataclasses import replace

import numpy as np
import pytest

import striate as api
from striate.core.errors import DataError
from striate.core.seeds import generator
from striate.data.check.check import check_data
from striate.data.check.label_error_findings import DOUBT
from striate.data.find_source import find_source
from striate.data.sources.source import Source, from_arrays
from striate.report.html import render
from striate.workflows.data_check.as_json import as_dict
from striate.workflows.data_check.findings import page_of, told
from striate.workflows.data_check.label_errors import (
    FOLDS,
    doubt_labels,
    folds_of,
    input_of,
)
from support.images import pil_image, snapshot, stripes, write_folder

SHARE = 0.05


def planted(source: Source, rows, seed=0):
    """Return some of a source's images, and where one label in twenty is wrong."""
    chance = generator(seed, "flips")
    labels = [source.records[i].label for i in rows]
    at = chance.choice(len(rows), round(SHARE * len(rows)), replace=False)
    for i in at:
        others = [name for name in source.labels.names if name != labels[i]]
        labels[i] = str(chance.choice(others))
    pixels = source.arrays[rows]
    return from_arrays("planted", pixels, labels, classes=source.labels), at


def found_in_top(order, at, share=0.1):
    """Return the share of planted flips in the top of a ranking."""
    top = set(order[: int(share * len(order))])
    return len(top & set(at.tolist())) / len(at)


def positions(found):
    return [doubt.position for doubt in found.doubts.ranking()]


@pytest.fixture(scope="module")
def judged():
    """400 digits with 20 wrong labels, judged; look, do not touch."""
    source, at = planted(find_source("digits"), range(400))
    return doubt_labels(check_data(source, near=False)), at


def test_planted_flips_are_in_the_top_tenth(judged):
    found, at = judged
    assert found_in_top(positions(found), at) >= 0.8


def test_a_ranking_by_chance_would_not_pass(judged):
    found, at = judged
    chances = [np.random.default_rng(k).permutation(400).tolist() for k in range(20)]
    assert max(found_in_top(order, at) for order in chances) < 0.5
    backwards = positions(found)[::-1]
    assert found_in_top(backwards, at) == 0


def test_the_ranking_holds_every_image(judged):
    found, _ = judged
    rows = list(found.doubts.ranking())
    assert sorted(row.position for row in rows) == list(range(400))
    assert [row.rank for row in rows] == list(range(1, 401))
    assert all(row.label == found.items[row.position].record.label for row in rows)
    assert all(row.looks_like != row.label for row in rows)
    assert found.doubts.unjudged == 0


def test_the_finding_is_the_images_believed_wrong(judged):
    found, at = judged
    [finding] = [f for f in found.findings if f.kind == DOUBT]
    assert not found.good
    assert finding.tone == "warning"
    members = [group.members[0] for group in finding.groups]
    assert members == [r.position for r in found.doubts.ranking() if r.believed_wrong]
    assert len(set(members) & set(at.tolist())) >= 0.8 * len(at)
    assert 10 <= found.doubts.judged.estimate <= 40  # 20 are
    assert finding.groups[0].note.startswith("labeled ")


def test_the_same_again():
    source, _ = planted(find_source("digits"), range(60))
    first, again = (
        doubt_labels(check_data(source, near=False)).doubts.judged for _ in range(2)
    )
    assert (first.probs == again.probs).all()


def test_no_fold_is_judged_by_a_network_that_learned_it(judged, monkeypatch):
    """Were each network to learn its own fold too, the flips would be remembered."""
    from striate.workflows.data_check import cross_validation as jury

    learned = []
    real = jury.fit

    def fit(model, optimizer, train, val, *words):
        learned.append((set(train.subset.paths), set(val.subset.paths)))
        return real(model, optimizer, train, val, *words)

    monkeypatch.setattr(jury, "fit", fit)
    source, _ = planted(find_source("digits"), range(60))
    found = check_data(source, near=False)
    doubt_labels(found)
    everyone = {item.record.path for item in found.items}
    assert len(learned) == FOLDS
    assert all(train | held == everyone and not train & held for train, held in learned)
    assert set().union(*(held for _, held in learned)) == everyone


def test_copies_and_groups_lie_in_one_fold():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    pixels[30:40] = pixels[:10]  # some of them under another label
    source = from_arrays("copied", pixels, ["a", "b", "c"] * 20)
    grouped = [
        replace(r, group=f"g{i // 5}") if i >= 40 else r
        for i, r in enumerate(source.records)
    ]
    source = replace(source, records=tuple(grouped))
    found = check_data(source, near=False)
    for seed in range(5):
        folds = folds_of(found, seed)
        assert (folds[30:40] == folds[:10]).all()
        assert all(len(set(folds[i : i + 5])) == 1 for i in range(40, 60, 5))
        assert set(folds) == set(range(FOLDS))


def test_a_class_that_no_network_learned_is_not_judged():
    pixels = np.random.default_rng(0).integers(0, 99, (41, 8, 8), np.uint8)
    pixels[20:40] += 120
    source = from_arrays("odd", pixels, ["low"] * 20 + ["high"] * 20 + ["lone"])
    found = doubt_labels(check_data(source, near=False))
    assert found.doubts.unjudged == 1
    last = list(found.doubts.ranking())[-1]
    assert (last.label, last.looks_like, last.believed_wrong) == ("lone", None, False)
    [note] = [f for f in found.findings if f.kind == "unjudged"]
    assert note.what == "the label of 1 image could not be judged"
    assert not [f for f in found.findings if f.kind == DOUBT and f.groups]


def test_one_class_or_none_is_not_judged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 99, (5, 8, 8), np.uint8)
    found = doubt_labels(check_data(from_arrays("one", pixels, ["a"] * 5)))
    assert found.doubts.unjudged == 5
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "set/a/x.png").write_bytes(b"")
    empty = doubt_labels(check_data(tmp_path / "set"))
    assert list(empty.doubts.ranking()) == []
    assert render(page_of(empty))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 5, 1), "8×8×1"), ((90, 9, 3), "64×9×3"), ((9, 12, 5), "9×12×5")],
)
def test_inputs_are_small_and_never_too_small(shape, expected):
    pixels = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    found = check_data(from_arrays("x", pixels, ["a", "b"] * 2), near=False)
    assert str(input_of(found).spec) == expected
    assert doubt_labels(found).doubts.unjudged == 0


@pytest.fixture
def photos(tmp_path):
    """Two classes of 30 stripes in files; one stands in the wrong folder."""
    root = write_folder(tmp_path / "photos", count=30)
    pil_image(stripes(0, 999)).save(root / "down/wrong.png")
    return root


def test_the_command_line(striate, photos, tmp_path):
    before = snapshot(photos)
    words = ("--near", "off", "--ranking", "out/rank.csv", "--html", "out/page.html")
    said = striate("data", "check", photos, "--labels", *words)
    assert snapshot(photos) == before
    assert said.code == 1
    assert "1 label of 61 is doubted; an estimated 1 is wrong" in said.out
    assert "down/wrong.png" in said.out
    assert "A suspicion, not a verdict" in said.out
    assert "ranking out/rank.csv" in said.out
    with open(tmp_path / "out/rank.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 61
    assert rows[0]["image_path"] == "down/wrong.png"
    assert (rows[0]["label"], rows[0]["looks_like"]) == ("down", "across")
    assert [row["believed_wrong"] for row in rows] == ["True"] + ["False"] * 60
    page = (tmp_path / "out/page.html").read_text(encoding="utf-8")
    assert "Doubtful labels" in page
    assert "labeled down, looks like across, " in page
    assert "Judged by 5 networks (tutorial_gray)" in page


def test_json(striate, photos):
    words = ("--near", "off", "--labels", "--json")
    said = striate("data", "check", photos, *words)
    assert (said.code, said.err) == (1, "")
    labels = said.json["labels"]
    assert (labels["judged"], labels["doubted"], labels["folds"]) == (61, 1, 5)
    assert labels["confusions"][0]["looks_like"] == "across"
    ranks = sorted(file["doubt"]["rank"] for file in said.json["files"])
    assert ranks == list(range(1, 62))
    [wrong] = [f for f in said.json["files"] if f["doubt"]["believed_wrong"]]
    assert wrong["path"] == "down/wrong.png"


def test_without_doubt_the_exit_is_0(striate, tmp_path):
    root = write_folder(tmp_path / "photos", count=30)
    said = striate("data", "check", root, "--near", "off", "--labels")
    assert said.code == 0
    assert "no label of 60 is doubted" in said.out


def test_a_ranking_needs_labels(striate, photos):
    said = striate("data", "check", photos, "--ranking", "rank.csv")
    assert said.code == 2
    assert "add --labels" in said.err


def test_progress_counts_images_learned(photos):
    heard = []
    found = check_data(photos, near=False)
    doubts = doubt_labels(found, tick=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (4 * 61 * doubts.doubts.epochs,) * 2
    assert heard == sorted(heard)


def test_in_python(photos):
    found = api.check_data(photos, near=False, labels=True)
    assert found.doubts.says(next(found.doubts.ranking()).position)[:2] == (
        "down",
        "across",
    )
    assert api.check_data(photos, near=False).doubts is None
    assert "labels" not in as_dict(api.check_data(photos, near=False))
    assert len(told(found)) > len(told(api.check_data(photos, near=False)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_all_digits(seed):
    source, at = planted(find_source("digits"), range(1797), seed)
    found = doubt_labels(check_data(source, near=False))
    assert found_in_top(positions(found), at) >= 0.8


@pytest.mark.slow
def test_ten_thousand_of_fashion_mnist():
    try:
        whole = find_source("fashion-mnist")
    except DataError:
        pytest.skip("fashion-mnist is not installed")
    rows = [i for i, record in enumerate(whole.records) if record.split == "test"]
    source, at = planted(whole, rows)
    found = doubt_labels(check_data(source, near=False))
    assert len(rows) == len(found.items) == 10_000
    assert found_in_top(positions(found), at) >= 0.8
