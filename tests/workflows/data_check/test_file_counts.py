"""`data check` and `train` count the files of one data set with the same numbers."""

import json
import re
import shutil
import tarfile

import pytest

from striate.data.check.changed_files import read_hashes
from striate.data.check.check import check_dataset
from striate.data.load import load_data
from support.images import encoded, pil_image, stripes, write_folder
from support.tar_shards import add

SUM = re.compile(r"[\d,]+ files? = .*ignored")


def folder_of_everything(root):
    """Write images, damaged files, duplicates, conflicts, hidden and other files."""
    write_folder(root, count=20)
    (root / "across/truncated.png").write_bytes(
        (root / "across/00.png").read_bytes()[:60]
    )
    (root / "across/empty.png").write_bytes(b"")
    (root / "down/notes.txt").write_text("no image")
    (root / "down/archive.zip").write_bytes(b"PK\x03\x04")
    (root / "across/.hidden.png").write_bytes((root / "across/00.png").read_bytes())
    (root / ".git").mkdir()
    (root / "Thumbs.db").write_bytes(b"")
    (root / "loose.png").write_bytes((root / "across/00.png").read_bytes())
    (root / "empty").mkdir()
    (root / "across/dangling.png").symlink_to("nowhere.png")
    shutil.copy(root / "across/01.png", root / "across/duplicate.png")
    shutil.copy(root / "across/02.png", root / "down/other-label.png")
    gray = pil_image(stripes(0, 3))
    gray.save(root / "down/same-pixels.png")  # those of across/03.png
    gray.convert("RGB").save(root / "across/as-color.png")
    return root


def csv_of_everything(root):
    """Write a CSV with groups, repeated rows, two labels, and a missing file."""
    folder_of_everything(root / "images")
    paths = sorted((root / "images").glob("*/*.png"))
    lines = [
        f"images/{p.parent.name}/{p.name},{p.parent.name},g{i}"
        for i, p in enumerate(paths)
    ]
    lines += [lines[0], "images/down/missing.png,down,x"]
    lines += ["images/across/04.png,down,g4"]
    table = root / "table.csv"
    table.write_text("\n".join(["image_path,label,group", *lines, ""]))
    return table


def splits_of_everything(root):
    """Write train and test folders with a conflict inside and across the splits."""
    folder_of_everything(root / "train")
    write_folder(root / "test", count=5, seed=1)
    shutil.copy(root / "train/across/05.png", root / "test/down/leak.png")
    shutil.copy(root / "test/across/00.png", root / "test/down/conflict.png")
    return root


def shards_of_everything(root):
    root.mkdir()
    with tarfile.open(root / "set-0.tar", "w") as tar:
        for i in range(40):
            payload = encoded(pil_image(stripes(i % 2, i)))
            add(tar, f"{'across' if i % 2 else 'down'}/{i:03d}.png", payload)
        add(tar, "across/bad.png", b"no image")
        add(tar, "across/000.png", encoded(pil_image(stripes(0, 0))))
    return root


@pytest.mark.parametrize(
    "write",
    [
        folder_of_everything,
        csv_of_everything,
        splits_of_everything,
        shards_of_everything,
    ],
)
def test_check_and_training_print_the_same_sum(tmp_path, striate, write):
    source = str(write(tmp_path / "set"))
    checked = SUM.search(striate("data", "check", source).out)[0]
    trained = striate("train", source, "--epochs", "1", "--out", "run", "--quiet")
    assert trained.code == 0, trained.err
    training = SUM.search(trained.out)[0]
    left_out = re.search(r" \+ (\d+) left out", training)
    if left_out:  # the check does not split the images, so it counts them as used
        used = re.search(r"= (\d+) used", checked)[1]
        both = int(re.search(r"= (\d+) used", training)[1]) + int(left_out[1])
        assert int(used) == both
        training = training.replace(left_out[0], "")
        training = re.sub(r"= \d+ used", f"= {used} used", training)
    assert training == checked
    split = striate("data", "split", source)
    assert SUM.search(split.out)[0] == SUM.search(trained.out)[0]
    report = (tmp_path / "run/report.html").read_text()
    assert SUM.search(trained.out)[0] in report
    assert checked.endswith("ignored")
    assert " 0 quarantined" not in checked


def test_the_status_of_each_file_is_the_same(tmp_path, striate):
    root = folder_of_everything(tmp_path / "set")
    files = striate("data", "check", str(root), "--json").json["files"]
    checked = {file["image_path"]: file["status"] for file in files}
    data = load_data(root)
    trained = {row.path: "used" for row in data.rows}
    trained |= {skip.path: "quarantined" for skip in data.quarantined}
    trained |= {skip.path: "ignored" for skip in data.ignored}
    assert checked == trained
    reasons = {f["image_path"]: f.get("reason") for f in files}
    assert reasons["down/other-label.png"] == "two-labels"
    assert sum(data.counts.values()) == data.num_files == len(files)


def test_the_output_of_an_earlier_version_is_still_read(tmp_path):
    files = [{"path": "a.png", "hash": "1"}, {"image_path": "b.png", "hash": "2"}]
    (tmp_path / "old.json").write_text(json.dumps({"files": files}))
    assert read_hashes(tmp_path / "old.json") == {"a.png": "1", "b.png": "2"}


def test_label_conflicts_are_not_counted_in_the_classes(tmp_path):
    result = check_dataset(folder_of_everything(tmp_path / "set"))
    total = sum(sum(by_split.values()) for _, by_split in result.classes)
    assert total == result.used == len(result.items) - len(result.conflicts)
