"""CSV files of other programs: delimiters, spaces, backslashes, columns twice."""

import pytest

from striate.core.errors import DataError
from striate.data.load import load_data
from striate.data.sources.columns import read_columns
from striate.data.sources.csv_rows import read_rows
from striate.data.sources.table import read_table
from support.images import write_table


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path)


def labels(table):
    return {record.path: record.label for record in read_table(table).records}


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ", ", "; "])
def test_every_usual_delimiter_is_read(table, delimiter):
    plain = labels(table)
    table.write_text(table.read_text().replace(",", delimiter))
    assert labels(table) == plain
    assert len(load_data(table).rows) == 24


def test_spaces_after_the_commas_of_the_rows_only(table):
    plain = labels(table)
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *(r.replace(",", ", ") for r in rows)]))
    assert labels(table) == plain


def test_a_comma_inside_a_semicolon_table_belongs_to_the_name(tmp_path):
    (tmp_path / "t.csv").write_text("image_path;label\na,b.png;cat\nc.png;dog\n")
    assert labels(tmp_path / "t.csv") == {"a,b.png": "cat", "c.png": "dog"}


def test_a_comma_in_a_name_without_quotes_is_refused(refused, table):
    """It gave the image `a` with the label `b.png`."""
    with table.open("a") as file:
        file.write("a,b.png,across\n")
    message = refused(table)
    assert "line 26 has 3 values for 2 columns" in message
    assert "in quotes" in message


def test_an_empty_last_column_is_harmless(table):
    plain = labels(table)
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *(f"{row}," for row in rows)]))
    assert labels(table) == plain


def test_paths_of_windows(table):
    plain = labels(table)
    table.write_text(table.read_text().replace("/", "\\"))
    assert labels(table) == plain
    assert set(read_columns(table, ["label"])) == set(plain)
    assert len(load_data(table).rows) == 24


def test_a_file_whose_name_has_a_backslash_keeps_it(table, tmp_path):
    image = tmp_path / "images/across/00.png"
    image.rename(tmp_path / "a\\b.png")
    with table.open("a") as file:
        file.write("a\\b.png,across\n")
    assert "a\\b.png" in labels(table)


@pytest.mark.parametrize(
    "header", ["image_path,label,label", "image_path,label,Label", "label,x, label"]
)
def test_two_label_columns_are_refused(refused, table, header):
    """The last one won."""
    rows = [f"{row},other" for row in table.read_text().splitlines()[1:]]
    table.write_text("\n".join([header, *rows]))
    assert "the CSV has several columns named 'label'" in refused(table)


def test_a_column_of_groups_twice_is_refused_where_it_is_used(tmp_path):
    (tmp_path / "t.csv").write_text("image_path,label,site,site\na.png,x,1,2\n")
    with pytest.raises(DataError, match="several columns named 'site'"):
        read_columns(tmp_path / "t.csv", ["site"])


def test_capital_letters_in_the_header(table):
    plain = labels(table)
    text = table.read_text().replace("image_path,label", "Image_Path,Label", 1)
    table.write_text(text)
    assert labels(table) == plain


def test_quoted_line_breaks_keep_their_line_numbers(tmp_path):
    (tmp_path / "t.csv").write_text('image_path,label\n"a\nb.png",x\nc.png,y\n')
    _, rows = read_rows(tmp_path / "t.csv")
    assert [number for number, _ in rows] == [3, 4]
