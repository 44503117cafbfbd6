"""`striate train TABLE.csv` with an invalid CSV: a message, files unchanged."""

import os

import pytest

from striate.data.load import load_data
from striate.data.sources.table import read_table
from support.images import pil_image, stripes, write_table


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path)


def add(table, *lines):
    with open(table, "a", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))


def accounted(data):
    """Every row is used, quarantined or ignored."""
    return data.num_files == len(data.rows) + len(data.quarantined) + len(data.ignored)


def test_missing_files_are_quarantined(table):
    add(table, "images/across/gone.png,across", "elsewhere/x.png,down")
    data = load_data(table)
    assert data.num_files == 26
    assert accounted(data)
    assert [(s.path, s.reason, s.detail) for s in data.quarantined] == [
        ("images/across/gone.png", "missing", "no such file"),
        ("elsewhere/x.png", "missing", "no such file"),
    ]


def test_all_files_missing(refused, tmp_path):
    (tmp_path / "t.csv").write_text("image_path,label\na.png,x\nb.png,y\n")
    message = refused("t.csv")
    assert "no usable images among 2 files: 2 missing" in message
    assert "the first: a.png (no such file)" in message


def test_duplicate_rows_are_used_once(table):
    add(table, "images/across/00.png,across", "images/across/00.png,across")
    data = load_data(table)
    assert (data.num_files, len(data.rows)) == (26, 24)
    assert [(s.reason, s.detail) for s in data.ignored] == [
        ("duplicate-row", "26"),
        ("duplicate-row", "27"),
    ]


def test_unknown_columns_are_listed(striate, table):
    text = table.read_text().splitlines()
    rows = [f"{line},7" for line in text[1:]]
    table.write_text("\n".join([text[0] + ",wieght", *rows]))
    result = striate("train", table, "--epochs", "1")
    assert result.code == 0
    assert "unknown columns of table.csv are ignored: wieght" in result.out


def test_a_missing_column_suggests_the_nearest(refused, table):
    table.write_text(table.read_text().replace("image_path,label", "path,lable", 1))
    message = refused(table)
    assert "missing column: image_path and label; got: path, lable" in message
    assert "rename 'path'" in message
    assert "the columns are image_path,label[,split,group]" in message


@pytest.mark.parametrize("text", ["", "\n", "file;class\na.png;x\n"])
def test_no_header(refused, tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert "missing column: image_path and label" in refused("t.csv")


def test_no_rows(refused, tmp_path):
    (tmp_path / "t.csv").write_text("image_path,label\n")
    assert "the CSV has no usable rows" in refused("t.csv")


def test_two_labels_for_one_path(table):
    """Nobody can know which label is right, so the image is not used."""
    add(table, "images/across/00.png,down")
    data = load_data(table)
    assert data.num_files == 25
    assert accounted(data)
    assert [(s.path, s.reason, s.detail) for s in data.quarantined] == [
        (
            "images/across/00.png",
            "two-labels",
            "labeled 'across' and 'down' (line 26)",
        )
    ]
    assert "images/across/00.png" not in {row.path for row in data.rows}


def test_three_rows_of_one_path_are_all_accounted_for(table):
    add(table, "images/across/00.png,down", "images/across/00.png,across")
    data = load_data(table)
    assert data.num_files == 26
    assert accounted(data)


@pytest.mark.parametrize("line", [",across", "images/across/00.png,", "x.png"])
def test_empty_path_or_label(refused, table, line):
    add(table, line)
    message = refused(table)
    assert "line 26 has no path or no label" in message
    assert "complete or delete the line" in message


def test_line_numbers_are_those_of_an_editor(refused, table):
    """Blank lines and line breaks in quotes count, as in any editor."""
    add(table, "", "", "images/across/00.png,")
    assert "line 28 has no path" in refused(table)


def test_not_utf8(refused, table):
    table.write_bytes(table.read_bytes() + "images/é.png,across\n".encode("latin-1"))
    message = refused(table)
    assert "the CSV is not UTF-8: invalid continuation byte at byte" in message
    assert "save it as UTF-8" in message


def test_a_byte_order_mark_is_not_part_of_the_header(table):
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(load_data(table).rows) == 24


def test_a_field_without_end(refused, tmp_path):
    (tmp_path / "t.csv").write_text('image_path,label\n"' + "x" * 200_000)
    assert "not a CSV: field larger than field limit" in refused("t.csv")


def test_a_zero_byte_in_a_name(table):
    add(table, "a\0.png,across")
    assert [s.reason for s in load_data(table).quarantined] == ["missing"]


def test_unreadable(refused, table, monkeypatch):
    """Root can read every file, so the system's error is simulated."""
    import pathlib

    real = pathlib.Path.open

    def deny(path, *words, **options):
        if path.suffix == ".csv":
            raise PermissionError(13, "Permission denied")
        return real(path, *words, **options)

    monkeypatch.setattr(pathlib.Path, "open", deny)
    assert "cannot read the CSV: Permission denied" in refused(table)


def with_split(table, split):
    lines = table.read_text().splitlines()
    rows = [f"{line},{split(i)}" for i, line in enumerate(lines[1:])]
    table.write_text("\n".join([lines[0] + ",split", *rows, ""]))


def test_bad_split_name(refused, table):
    with_split(table, lambda i: "holdout" if i == 3 else "train")
    message = refused(table)
    assert "line 5 has an unknown split 'holdout'" in message
    assert "use train, val or test, or leave it empty" in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_images(refused, table, split):
    other = "val" if split == "train" else "test"
    with_split(table, lambda i: other)
    assert "the train split has no images" in refused(table)


def test_given_split_and_spellings(table):
    names = ["Train", "valid", " TEST "]
    with_split(table, lambda i: names[i % 3])
    data = load_data(table)
    assert {n: len(p) for n, p in data.subsets.items()} == dict.fromkeys(
        ("train", "val", "test"), 8
    )


def test_classes_in_test_that_training_has_not(refused, table):
    with_split(table, lambda i: "test" if i >= 12 else ("train", "val")[i % 2])
    message = refused(table)
    assert "the test split has classes without training images: 'down'" in message


def test_two_files_of_one_image_with_two_labels(table, tmp_path):
    """Detected by the pixels: other format, other name, same image."""
    image = pil_image(stripes(0, 99))
    image.save(tmp_path / "images/across/twin.png")
    image.save(tmp_path / "images/down/twin.bmp")
    add(table, "images/across/twin.png,across", "images/down/twin.bmp,down")
    data = load_data(table)
    assert accounted(data)
    assert [(s.path, s.reason, s.detail) for s in data.quarantined] == [
        (
            "images/across/twin.png",
            "two-labels",
            "'across' here, 'down' in images/down/twin.bmp",
        ),
        (
            "images/down/twin.bmp",
            "two-labels",
            "'down' here, 'across' in images/across/twin.png",
        ),
    ]


def test_a_given_test_split_is_never_changed(table, tmp_path):
    with_split(table, lambda i: ("train", "val")[i % 2])
    for name in ("across/t.png", "down/t.png"):
        pil_image(stripes(0, 99)).save(tmp_path / "images" / name)
    add(table, "images/across/t.png,across,train", "images/down/t.png,down,test")
    data = load_data(table)
    assert data.quarantined == ()
    leak = "1 image of test is also in train (given splits): "
    pair = "images/across/t.png = images/down/t.png"
    assert leak + pair in data.warnings


def test_absolute_paths(table, tmp_path):
    text = table.read_text().replace("\nimages", f"\n{tmp_path}{os.sep}images")
    table.write_text(text)
    assert len(load_data(table).rows) == 24


def test_groups_stay_together(table):
    lines = table.read_text().splitlines()
    rows = [f"{line},g{i % 8}" for i, line in enumerate(lines[1:])]
    table.write_text("\n".join([lines[0] + ",group", *rows, ""]))
    where = {}
    for row in load_data(table).rows:
        where.setdefault(row.group, set()).add(row.split)
    assert all(len(splits) == 1 for splits in where.values())
    assert set().union(*where.values()) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("train,\n{0},test,", "two-splits"),
        ("train,a\n{0},train,b", "two-groups"),
        (",\n{0},train,", "two-splits"),
    ],
)
def test_rows_with_different_splits_or_groups(tmp_path, rows, reason):
    table = write_table(tmp_path)
    header, first, *rest = table.read_text().splitlines()
    path = first.split(",")[0]
    lines = [f"{first},{rows.format(first)}", *(f"{row},," for row in rest)]
    table.write_text("\n".join([f"{header},split,group", *lines, ""]))
    source = read_table(table)
    assert [(skip.path, skip.reason) for skip in source.quarantined] == [(path, reason)]
    assert "(line 3)" in source.quarantined[0].detail
    assert path not in {record.path for record in source.records}
    assert [skip.detail for skip in source.ignored] == ["3"]


def test_names_are_not_interpreted_as_markup(striate, tmp_path):
    table = write_table(tmp_path)
    text = table.read_text()
    for name, other in (("across", "[/x]"), ("down", "b[bold]")):
        text = text.replace(f",{name}\n", f",{other}\n")
    odd = table.rename(tmp_path / "a[b].csv")
    odd.write_text(text)
    for words in (["data", "preview"], ["data", "check"]):
        result = striate(*words, odd)
        assert "[/x]" in result.out
        assert "b[bold]" in result.out
        assert "a[b]" in result.out
    result = striate("train", odd, "--epochs", "1", "--out", "run")
    assert result.code == 0
    assert "[/x]" in result.out
    assert "b[bold]" in striate("evaluate", "run").out
