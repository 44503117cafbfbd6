"""Real-world folders: every file is accounted for, and no file is changed.

Every test checks the sum: files = used + quarantined + ignored.
"""

import os
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from striate.core.files import read_csv
from striate.data.load import load_data
from striate.data.sources.folder import read_folder
from support.images import encoded, pil_image, snapshot, stripes, write_folder


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos")


@pytest.fixture
def loaded(photos, tmp_path):
    """Load the folder, check the sum, and return (data, {path: reason})."""

    def load(**options):
        before = snapshot(photos)
        data = load_data(photos, **options)
        assert snapshot(photos) == before
        skipped = [*data.quarantined, *data.ignored]
        assert data.num_files == len(data.rows) + len(skipped)
        used = {row.path for row in data.rows}
        assert used.isdisjoint(skip.path for skip in skipped)
        return data, {skip.path: skip.reason for skip in skipped}

    return load


def test_a_plain_folder(loaded):
    data, skipped = loaded()
    assert (data.num_files, len(data.rows), skipped) == (24, 24, {})
    assert data.labels.names == ("across", "down")
    assert str(data.preprocess.spec) == "8×8×1"


def test_broken_files_are_quarantined_with_their_reason(loaded, photos):
    jpeg = encoded(pil_image(stripes(0, 1, 64, 64)), "JPEG")
    png = encoded(pil_image(stripes(0, 2, 64, 64)))
    broken = {
        "zero.jpg": (b"", "not-an-image"),
        "page.jpg": (b"<!doctype html>", "not-an-image"),
        "drawing.svg": (b"<svg/>", "not-an-image"),
        "notes.txt": (b"remember the milk", "not-an-image"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut-ended.jpg": (jpeg[: len(jpeg) // 2] + b"\xff\xd9", "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "float.tif": (
            encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"),
            "unsupported",
        ),
        "bomb.png": (encoded(Image.new("1", (14_000, 14_000))), "too-large"),
    }
    for name, (payload, _) in broken.items():
        (photos / "across" / name).write_bytes(payload)
    data, skipped = loaded(image_size=8)
    assert skipped == {f"across/{n}": reason for n, (_, reason) in broken.items()}
    assert len(data.rows) == 24
    assert data.in_chans == 1


def test_skipped_files_are_listed_in_quarantine_csv(striate, photos, tmp_path):
    (photos / "across/zero.jpg").touch()
    (photos / "across/.hidden.png").touch()
    (photos / "readme.md").write_text("about")
    result = striate("train", photos, "--epochs", "1", "--out", "run")
    assert result.code == 0
    assert "1 file cannot be used" in result.out
    rows = read_csv(tmp_path / "run/quarantine.csv")
    assert sorted((r["status"], r["image_path"], r["reason"]) for r in rows) == [
        ("ignored", "across/.hidden.png", "hidden"),
        ("ignored", "readme.md", "not-in-a-class-folder"),
        ("quarantined", "across/zero.jpg", "not-an-image"),
    ]


def test_system_files_are_neither_classes_nor_images(loaded, photos):
    for folder in (".ipynb_checkpoints", "__MACOSX", ".git"):
        shutil.copytree(photos / "across", photos / folder)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png"):
        (photos / "down" / name).write_bytes(b"x")
    shutil.copytree(photos / "across", photos / "down/.ipynb_checkpoints")
    data, skipped = loaded()
    assert data.labels.names == ("across", "down")
    assert skipped == {
        ".git": "hidden",
        ".ipynb_checkpoints": "hidden",
        "__MACOSX": "system-file",
        "down/._a.png": "hidden",
        "down/.DS_Store": "hidden",
        "down/.ipynb_checkpoints": "hidden",
        "down/Thumbs.db": "system-file",
        "down/desktop.ini": "system-file",
    }


def test_an_empty_class_folder_is_listed(loaded, photos):
    (photos / "nothing").mkdir()
    data, skipped = loaded()
    assert skipped == {"nothing": "empty-class-folder"}
    assert data.num_classes == 2


def test_links(loaded, photos, tmp_path):
    """Link loops end; a link to a file is a file; dangling links are listed."""
    outside = tmp_path / "outside.png"
    pil_image(stripes(0, 50)).save(outside)
    (photos / "across/outside.png").symlink_to(outside)
    (photos / "across/gone.png").symlink_to(tmp_path / "gone.png")
    (photos / "across/self.png").symlink_to("self.png")
    (photos / "across/here").symlink_to(".")
    (photos / "across/up").symlink_to("..")
    (photos / "top").symlink_to(".")
    data, skipped = loaded()
    assert len(data.rows) == 25
    assert data.num_classes == 2
    assert skipped == {
        "across/gone.png": "dangling-link",
        "across/self.png": "dangling-link",
        "across/here": "link-loop",
        "across/up": "link-loop",
        "top": "link-loop",
    }


def test_a_loop_through_a_split_folder(tmp_path):
    root = tmp_path / "split"
    write_folder(root / "train")
    (root / "train/across/up").symlink_to("..")
    data = load_data(root)
    assert [skip.reason for skip in data.ignored] == ["link-loop"]
    assert len(data.rows) == 24


def test_pipes_and_sockets_are_never_opened(loaded, photos, monkeypatch):
    """Opening a pipe waits for a writer; this test would never end."""
    os.mkfifo(photos / "across/pipe.png")
    monkeypatch.chdir(photos / "down")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("socket.png")
        _, skipped = loaded()
    assert skipped == {
        "across/pipe.png": "not-a-file",
        "down/socket.png": "not-a-file",
    }


def test_unreadable_file_and_folder(loaded, photos, monkeypatch):
    """Root can read mode 000, so the system's error is simulated."""
    (photos / "locked").mkdir()
    (photos / "across/00.png").chmod(0)
    listdir, read_bytes = os.listdir, type(photos).read_bytes

    def deny_folder(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    def deny_file(path):
        if not path.stat().st_mode & 0o400:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(os, "listdir", deny_folder)
    monkeypatch.setattr(type(photos), "read_bytes", deny_file)
    source = read_folder(photos)
    assert ("locked", "unreadable-folder", "Permission denied") in [
        (skip.path, skip.reason, skip.detail) for skip in source.ignored
    ]
    data = load_data(photos)
    assert [(s.path, s.reason) for s in data.quarantined] == [
        ("across/00.png", "unreadable")
    ]


NAMES = [
    "🐈.png",
    "שלום.png",
    "line\nbreak.png",
    "carriage\rreturn.png",
    "tab\there.png",
    'comma, quote ".png',
    "-leading.png",
    "CON.png",
    "a" * 251 + ".png",
    "[bold]x[red].png",
    "<b>.png",
    os.fsdecode(b"caf\xe9.png"),
    "e\u0301.png",
    "\u00e9.png",
]


def test_unusual_file_names(striate, photos, tmp_path):
    """Names survive split.csv, predictions, report and terminal."""
    for number, name in enumerate(NAMES):
        pil_image(stripes(0, 500 + number)).save(photos / "across" / name)
    (photos / "across" / os.fsdecode(b"bad\xff.png")).touch()
    before = snapshot(photos)
    result = striate("train", photos, "--epochs", "1", "--out", "run")
    assert result.code == 0
    rows = read_csv(tmp_path / "run/split.csv")
    assert {r["image_path"] for r in rows} >= {f"across/{name}" for name in NAMES}
    evaluation = striate("evaluate", "run", "--split", "train", "--json")
    assert evaluation.json["count"] > 0
    answers = striate("predict", "run", photos / "across", "--json", "--out", "a.json")
    assert answers.code == 1
    paths = {
        os.path.basename(answer["image_path"]) for answer in answers.json["predictions"]
    }
    assert paths >= set(NAMES)
    assert striate("predict", "run", photos / "across", "--out", "a.csv").code == 1
    written = {
        os.path.basename(row["image_path"]) for row in read_csv(tmp_path / "a.csv")
    }
    assert written == paths
    assert snapshot(photos) == before


def test_unusual_class_names(striate, tmp_path):
    classes = ["🐈", "[red]", 'a, "b"', os.fsdecode(b"caf\xe9"), "line\nbreak"]
    write_folder(tmp_path / "photos", classes=classes, count=8)
    result = striate("train", "photos", "--epochs", "1", "--out", "run")
    assert result.code == 0
    assert set(striate("evaluate", "run").out) & set("🐈")
    answer = striate("predict", "run", tmp_path / "photos/🐈/00.png", "--json").json
    assert set(answer["predictions"][0]["probabilities"]) == set(classes)


def test_content_decides_the_format_not_the_extension(loaded, photos):
    image = pil_image(stripes(1, 77))
    for name in ("A.JPG", "b.jfif", "none", "wrong.png", "x.docx"):
        (photos / "down" / name).write_bytes(
            encoded(pil_image(stripes(1, len(name) * 7)), "JPEG")
        )
    (photos / "down/really-png.jpg").write_bytes(encoded(image))
    (photos / "down/photo.avif").write_bytes(b"\0\0\0\x18ftypavif" + b"\0" * 20)
    data, skipped = loaded()
    assert skipped == {"down/photo.avif": "not-an-image"}
    assert len(data.rows) == 30


def test_modes_together_make_a_color_set(loaded, photos):
    color = pil_image(stripes(0, 9, channels=3))
    for mode in ("CMYK", "P", "LA", "RGBA", "1", "L"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        image = color.convert(mode)
        (photos / "across" / f"mode-{mode}").write_bytes(encoded(image, kind))
    data, skipped = loaded()
    assert (data.in_chans, skipped) == (3, {})


def test_gray_forced_on_color(loaded, photos):
    write_folder(photos, classes=["across"], channels=3, seed=4)
    data, _ = loaded(in_chans=1)
    assert data.subset("train").pixels.shape[-1] == 1


def test_sizes_mixed_or_shared_or_large(tmp_path):
    mixed = write_folder(tmp_path / "mixed")
    pil_image(stripes(0, 1, 9, 8)).save(mixed / "across/odd.png")
    assert load_data(mixed).image_size == (64, 64)
    oblong = write_folder(tmp_path / "oblong", size=(6, 10))
    assert load_data(oblong).image_size == (6, 10)
    assert load_data(oblong, image_size=12).image_size == (12, 12)
    large = write_folder(tmp_path / "large", size=(600, 8), count=2)
    write_folder(large, size=(600, 8), count=6, seed=1)
    assert load_data(large, val_fraction=0.3).image_size == (64, 64)


def test_nested_folders_belong_to_their_class(loaded, photos):
    shutil.move(photos / "across/00.png", photos / "across/deep-00.png")
    (photos / "across/a/b").mkdir(parents=True)
    shutil.move(photos / "across/deep-00.png", photos / "across/a/b/00.png")
    data, skipped = loaded()
    assert skipped == {}
    assert {r.label for r in data.rows if r.path == "across/a/b/00.png"} == {"across"}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "VALID", "testing")],
)
def test_a_folder_already_split(tmp_path, train, val, test):
    root = tmp_path / "split"
    for seed, name in enumerate((train, val, test)):
        write_folder(root / name, count=4 + seed, seed=seed)
    data = load_data(root)
    assert {n: len(p) for n, p in data.subsets.items()} == {
        "train": 8,
        "val": 10,
        "test": 12,
    }
    splits = {row.path.split("/")[0]: row.split for row in data.rows}
    assert splits == {train: "train", val: "val", test: "test"}


def test_missing_splits_are_drawn_from_training(tmp_path):
    root = tmp_path / "split"
    write_folder(root / "train", count=20)
    write_folder(root / "test", count=5, seed=1)
    for exact in (True, False):
        splits = load_data(root, val_fraction=0.25, exact=exact).subsets
        assert len(splits["train"]) + len(splits["val"]) == 40
        assert len(splits["test"]) == 10
        assert len(splits["val"]) == 10 if exact else 4 < len(splits["val"]) < 18
    only = tmp_path / "only"
    write_folder(only / "train", count=20)
    splits = load_data(only, exact=True).subsets
    assert {n: len(p) for n, p in splits.items()} == {"train": 24, "val": 6, "test": 10}
    root = tmp_path / "given"
    write_folder(root / "train", count=20)
    write_folder(root / "val", count=5, seed=1)
    assert list(load_data(root).subsets) == ["train", "val"]


def test_a_warning_about_an_image_in_two_splits(tmp_path):
    root = write_folder(tmp_path / "split/train", count=12).parent
    write_folder(root / "test", count=3)
    data = load_data(root)
    leaks = [w for w in data.warnings if " of test " in w and " also in" in w]
    assert sum(int(w.split()[0]) for w in leaks) == 6


def test_duplicates_are_in_one_split(loaded, photos):
    for i in range(12):
        shutil.copy(photos / f"across/{i:02d}.png", photos / f"across/copy{i}.png")
    data, _ = loaded()
    where = {}
    for row in data.rows:
        where.setdefault(row.content, set()).add(row.split)
    assert all(len(splits) == 1 for splits in where.values())


def test_a_file_that_is_deleted_between_scan_and_decoding(photos, monkeypatch):
    from striate.data.cache.decode_dataset import decode_images
    from striate.data.torch_dataset import decode_source

    def late(source, *words, **options):
        (photos / "across/00.png").unlink()
        return decode_images(source, *words, **options)

    monkeypatch.setattr(decode_source, "decode_images", late)
    data = load_data(photos)
    assert [(s.path, s.reason) for s in data.quarantined] == [
        ("across/00.png", "missing")
    ]
    assert data.num_files == 24


# --- folders that are not what they seem


def test_one_more_folder_around_the_class_folders(refused, striate, photos, tmp_path):
    (tmp_path / "set").mkdir()
    photos.rename(tmp_path / "set/photos")
    message = refused(tmp_path / "set")
    assert (
        f"the class folders are one folder deeper, in {tmp_path}/set/photos" in message
    )
    assert f"use {tmp_path}/set/photos as DATA" in message


def test_one_class_with_subfolders_is_one_class(refused, tmp_path):
    write_folder(tmp_path / "set/cat", ("2023", "2024"))
    (tmp_path / "set/cat/one.png").write_bytes(
        (tmp_path / "set/cat/2023/00.png").read_bytes()
    )
    assert "only one class ('cat')" in refused(tmp_path / "set")


def test_val_and_test_without_train(refused, tmp_path):
    """They were trained against each other, as two classes."""
    for split in ("val", "test"):
        write_folder(tmp_path / "set" / split)
    message = refused(tmp_path / "set")
    assert "the train split has no images: the data has only val and test" in message
    assert "the folder train" in message


def test_only_a_test_folder(refused, tmp_path):
    write_folder(tmp_path / "set/test")
    assert "the data has only test" in refused(tmp_path / "set")


def test_splits_beside_classes(refused, tmp_path):
    for name in ("val", "test", "cat"):
        write_folder(tmp_path / "set" / name)
    assert "some folders are not train, val or test: cat" in refused(tmp_path / "set")


def test_one_class_may_be_called_test(tmp_path):
    data = load_data(write_folder(tmp_path / "set", ("control", "test")))
    assert data.labels.names == ("control", "test")


@pytest.fixture
def locked(monkeypatch):
    """Deny the listing of a folder, as the system denies it to all but root."""
    real = os.listdir

    def lock(folder):
        def deny(path):
            if os.fspath(path) == os.fspath(folder):
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(os, "listdir", deny)

    return lock


def test_a_class_folder_without_permission_is_named(locked, striate, tmp_path):
    root = write_folder(tmp_path / "photos", ("a", "b", "c"))
    locked(root / "c")
    data = load_data(root)
    assert data.labels.names == ("a", "b")
    text = "the folder c cannot be read (Permission denied): its images are missing"
    assert text in data.warnings
    assert text in striate("data", "check", root, "--near", "off").out


def test_a_data_folder_without_permission(locked, refused, photos):
    locked(photos)
    assert "the folder cannot be read: Permission denied" in refused(photos)
