"""Split files: old images keep their split, new ones are assigned."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

import striate as api
from striate.core.errors import DataError, SettingError
from striate.core.files import read_csv, write_csv
from striate.data.load import load_data
from striate.data.sources.source import Record, from_arrays
from striate.data.split.assign import assign_splits
from striate.data.split.hash_split import SplitConfig
from striate.data.split.split_file import read_split
from support.images import pil_image, stripes, write_folder


def save(rows, path=Path("split.csv")):
    columns = ("image_path", "label", "split", "group", "content")
    write_csv(
        path, columns, [(r.path, r.label, r.split, r.group, r.content) for r in rows]
    )
    return path


def splits(data):
    return {row.path: row.split for row in data.rows}


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", count=30)


def test_an_exact_split_is_kept_when_images_are_added(photos):
    """The file makes the promise that an exact deal by itself cannot."""
    first = load_data(photos, exact=True, seed=1)
    save(first.rows)
    write_folder(photos, count=33, seed=0)
    for i in range(40, 43):
        pil_image(stripes(0, i)).save(photos / "across" / f"{i}.png")
    again = load_data(photos, split="split.csv", seed=9)
    assert splits(first).items() <= splits(again).items()
    assert len(again.rows) == 69
    assert again.notes == (
        "split of split.csv: 60 images with the earlier split, 9 new images, 0 missing",
    )
    # Dealt anew they would not have stayed: the file is what keeps them.
    anew = splits(load_data(photos, exact=True, seed=1))
    assert any(anew[path] != split for path, split in splits(first).items())


def test_renamed_files_match_by_content_and_changed_files_are_new(photos):
    first = load_data(photos, exact=True)
    save(first.rows)
    (photos / "down/00.png").rename(photos / "down/renamed.png")
    (photos / "down/01.png").unlink()
    pil_image(stripes(1, 777)).save(photos / "down/02.png")
    again = load_data(photos, split="split.csv")
    had, have = splits(first), splits(again)
    assert have["down/renamed.png"] == had["down/00.png"]
    assert "59 images" not in again.notes[0]
    assert "58 images with the earlier split, 1 new image," in again.notes[0]
    assert "1 missing" in again.notes[0]
    rest = had.keys() - {"down/00.png", "down/01.png", "down/02.png"}
    assert {have[p] for p in rest} == {"train", "val", "test"}
    assert all(have[path] == had[path] for path in rest)


def records(**groups):
    return [Record(path=path, label="a", group=group) for path, group in groups.items()]


def test_a_new_image_of_an_old_group_goes_where_the_group_is(tmp_path):
    old = records(a="g", b="h", c=None)
    rows = assign_splits(old, ["1", "2", "3"], SplitConfig()).rows
    for split, row in zip(("train", "val", "test"), rows, strict=True):
        object.__setattr__(row, "split", split)
    earlier = read_split(save(rows))
    news = records(d="g", e="h", f=None, g="g")
    found = assign_splits(
        [*old, *news], ["1", "2", "3", "4", "5", "3", "2"], SplitConfig(), earlier
    )
    have = {row.path: row.split for row in found.rows}
    assert have == {
        "a": "train",
        "b": "val",
        "c": "test",
        "d": "train",
        "e": "val",
        "f": "test",
    }
    # The new copy of a validation image in a training group is left out.
    assert [(s.path, s.reason) for s in found.left_out] == [("g", "duplicate-in-val")]


def test_a_table_of_ones_own_is_a_split_too(photos, tmp_path):
    with open("mine.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_path", "split"])
        for i in range(30):
            for name in ("across", "down"):
                writer.writerow(
                    [f"{name}/{i:02}.png", ("Training", "testing")[i % 3 == 0]]
                )
    data = load_data(photos, split="mine.csv", val_fraction=0.3)
    assert sum(row.split == "test" for row in data.rows) == 20
    assert all(r.split != "test" for r in data.rows if int(r.path[-6:-4]) % 3)
    # It names no validation images, so they are dealt from the training ones.
    assert 4 < len(data.subset("val")) < 24


def test_a_split_without_a_test_gets_none(photos):
    first = load_data(photos, test_fraction=0, exact=True)
    save(first.rows)
    write_folder(photos, count=60)
    again = load_data(photos, split="split.csv")
    assert list(again.subsets) == ["train", "val"]
    assert splits(first).items() <= splits(again).items()


def test_given_splits_are_kept(tmp_path):
    """Validation dealt from given training images is kept; the folders' test is."""
    for seed, name in enumerate(("train", "test")):
        write_folder(tmp_path / "sets" / name, count=20, seed=seed)
    first = load_data(tmp_path / "sets", val_fraction=0.3)
    save(first.rows)
    again = load_data(tmp_path / "sets", split="split.csv", seed=5, val_fraction=0.3)
    assert splits(again) == splits(first)
    shutil.move(
        tmp_path / "sets/test/across/00.png", tmp_path / "sets/train/across/t.png"
    )
    moved = load_data(tmp_path / "sets", split="split.csv")
    assert moved.notes[1] == "1 earlier test image now in train: assigned again"
    assert splits(moved)["train/across/t.png"] in ("train", "val")


def test_unused_images_are_training_images():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 3, 3), np.uint8)
    source = from_arrays("toy", pixels, ["ab"[i % 2] for i in range(200)])
    small = load_data(source, fraction=0.2)
    save(small.rows)
    again = load_data(source, split="split.csv", fraction=0.2, seed=0)
    assert splits(again) == splits(small)
    full = load_data(source, split="split.csv")
    assert len(full.subset("train")) == len(small.subset("train")) + small.num_unused


def test_a_run_is_a_split(striate, photos):
    assert striate("train", photos, "--epochs", "1", "--out", "runs/train/a").code == 0
    write_folder(photos, count=33)
    words = ("--epochs", "1", "--seed", "3", "--out", "b")
    said = striate("train", photos, "--split", "a", *words)
    assert "60 images with the earlier split, 6 new images" in said.out
    had, have = (
        {row["image_path"]: row["split"] for row in read_csv(Path(run) / "split.csv")}
        for run in ("runs/train/a", "b")
    )
    assert had.items() <= have.items()
    assert api.load_run("b").recipe.split == str(
        Path("runs/train/a/split.csv").resolve()
    )
    assert "60 images with the earlier split" in Path("b/report.html").read_text()
    # And again from the settings that the run wrote down.
    assert striate("train", "--config", "b/args.yaml", "--out", "c").code == 0
    assert Path("c/split.csv").read_text() == Path("b/split.csv").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a split file needs the columns image_path and split, got: "),
        ("path,label\na,b\n", "got: path, label"),
        ("image,split\na,train\n", "got: image, split"),
        ("path,split\na,train\nb,holdout\n", "unknown split 'holdout'"),
    ],
)
def test_invalid_split_files(tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_split("s.csv")
    assert message in str(caught.value)


def test_a_missing_split_file(striate, refused, photos, tmp_path):
    with pytest.raises(DataError, match="there is no split file"):
        read_split(tmp_path)
    (tmp_path / "bad.csv").write_bytes(b'path,split\n"' + b"x" * 200_000)
    with pytest.raises(DataError, match="not a CSV: field larger"):
        read_split("bad.csv")
    assert "the run folder does not exist" in refused(photos, "--split", "nowhere")
    assert "line 3" in refused(
        photos, "--split", save_lines(tmp_path, "a,train", "b,x")
    )
    with pytest.raises(SettingError, match="cannot be divided into folds"):
        load_data(photos, split="split.csv", folds=2, fold=0)


def save_lines(folder, *lines):
    path = folder / "lines.csv"
    path.write_text("\n".join(["path,split", *lines, ""]))
    return path


# --- paths as other tools write them


WRITTEN = {
    "with a dot": lambda root, path: f"./{path}",
    "absolute": lambda root, path: str(root / path),
    "from the current folder": lambda root, path: f"photos/{path}",
    "with backslashes": lambda root, path: path.replace("/", "\\"),
    "in capitals": lambda root, path: path.upper(),
}


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("folder", [".", "elsewhere"])
def test_other_spellings_of_the_paths_match(photos, kind, folder):
    first = load_data(photos, seed=3)
    lines = [f"{WRITTEN[kind](photos, r.path)},{r.split}" for r in first.rows]
    Path(folder).mkdir(exist_ok=True)
    table = Path(folder) / "s.csv"
    table.write_text("\n".join(["image_path,split", *lines]))
    again = load_data(photos, split=table)
    assert splits(again) == splits(first)
    assert "60 images with the earlier split, 0 new images, 0 missing" in again.notes[0]


def test_paths_that_differ_in_case_only_are_two_images(tmp_path):
    write_folder(tmp_path / "photos", ("a", "b"), count=3)
    (tmp_path / "photos/a/00.png").rename(tmp_path / "photos/a/X.png")
    (tmp_path / "photos/a/01.png").rename(tmp_path / "photos/a/x.png")
    lines = ["a/X.png,val", "a/x.png,train", "a/02.png,train"]
    lines += ["b/00.png,val", "b/01.png,train", "b/02.png,train"]
    Path("s.csv").write_text("\n".join(["image_path,split", *lines]))
    data = load_data("photos", split="s.csv")
    assert splits(data)["a/X.png"] == "val"
    assert splits(data)["a/x.png"] == "train"


def test_a_split_file_of_other_images_is_refused(refused, photos):
    """The run trained on another split, with a note about "60 new images"."""
    Path("s.csv").write_text("image_path,split\nx/1.png,train\nx/2.png,val\n")
    message = refused(photos, "--split", "s.csv")
    assert "the split file has none of these images: it has 'x/1.png'" in message
    assert "not 'across/00.png'" in message


def test_a_split_file_that_is_not_used_is_named(tmp_path):
    for name in ("train", "val"):
        write_folder(tmp_path / "sets" / name, count=3, seed=len(name))
    Path("s.csv").write_text("image_path,split\na.png,train\nb.png,val\n")
    data = load_data("sets", split="s.csv")
    assert data.notes == ("split of s.csv: not used, the data has its own splits",)


def test_an_image_in_two_splits_is_refused(photos):
    lines = ["across/00.png,train", "across/01.png,val", "across/00.png,val"]
    Path("s.csv").write_text("\n".join(["image_path,split", *lines]))
    with pytest.raises(DataError, match="is in two splits: train and val") as caught:
        load_data(photos, split="s.csv")
    assert "line 4" in str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_byte_order_mark_and_other_delimiters(photos, delimiter):
    first = load_data(photos)
    lines = [delimiter.join((r.path, r.split)) for r in first.rows]
    text = "\n".join([f"image_path{delimiter}split", *lines])
    Path("s.csv").write_text(text, encoding="utf-8-sig")
    assert splits(load_data(photos, split="s.csv", seed=4)) == splits(first)
