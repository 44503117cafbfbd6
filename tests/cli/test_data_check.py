"""`striate data check`: what it finds, how it says it, and that it changes nothing."""

import argparse
import csv
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from striate.cli import data_check
from striate.core.errors import DataError
from striate.data.check.check import check_data
from striate.data.check.leak_impact import Worth, worth
from striate.data.load import load_data
from support.images import encoded, pil_image, snapshot, write_folder, write_table
from support.planted_copies import clouds


@pytest.fixture
def photos(tmp_path):
    """Two classes of 30 colored images that share nothing."""
    root = tmp_path / "photos"
    for kind, name in enumerate(("bark", "cloth")):
        (root / name).mkdir(parents=True)
        for k in range(30):
            pixels = clouds(100 * kind + k, 40)
            pil_image(pixels).save(root / name / f"{k:02d}.png")
    return root


def split(photos):
    """Give every third image to the test split."""
    for split in ("train", "test"):
        for name in ("bark", "cloth"):
            (photos.parent / "split" / split / name).mkdir(parents=True)
    for path in sorted(photos.rglob("*.png")):
        split = "test" if int(path.stem) % 3 == 0 else "train"
        shutil.copy(path, photos.parent / "split" / split / path.parent.name)
    return photos.parent / "split"


@pytest.fixture
def told(striate):
    """Check, assert that nothing was touched, and return findings by kind."""

    def call(root, *words, code=1):
        before = snapshot(root if root.is_dir() else root.parent)
        said = striate("data", "check", root, "--json", *words)
        assert snapshot(root if root.is_dir() else root.parent) == before
        assert (said.code, said.err) == (code, "")
        findings = {f["kind"]: f for f in said.json["findings"]}
        assert len(findings) == len(said.json["findings"])
        return findings

    return call


def members(finding):
    return [set(group["paths"]) for group in finding["groups"]]


# --- words and exits


def test_the_flags_are_frozen():
    """A flag that a user's script may hold changes only on purpose."""
    parser = argparse.ArgumentParser()
    data_check.configure(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    expected = (
        "--near --labels --ranking --since --html --csv --workers --quiet --help -h"
    )
    assert flags == set(expected.split())


def test_a_good_set_ends_with_0(striate, photos):
    said = striate("data", "check", photos)
    assert said.code == 0
    assert "photos  60 seen = 60 used + 0 quarantined + 0 ignored" in said.out
    assert "2 classes: bark 30, cloth 30" in said.out
    assert "Nothing to mend." in said.out
    assert "--html" not in said.out


def test_findings_end_with_1_and_say_what_to_do(striate, photos):
    (photos / "bark/cut.jpg").write_bytes(
        encoded(pil_image(clouds(7)), "JPEG")[:900] + b"\xff\xd9"
    )
    for k in range(5):
        shutil.copy(photos / f"cloth/{k:02d}.png", photos / f"cloth/copy{k}.png")
    said = striate("data", "check", photos)
    assert said.code == 1
    assert "1 file cannot be used: 1 truncated" in said.out
    assert "bark/cut.jpg: truncated" in said.out
    assert "do:  copy them again" in said.out
    assert "5 images are exact copies of others of the same class" in said.out
    assert "cloth/00.png = cloth/copy0.png" in said.out
    assert "… and 2 more" in said.out
    assert "--html FILE shows the images" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no such file, folder or data set: nowhere"),
        (["digit"], "did you mean digits?"),
        (["digits", "--near", "maybe"], "maybe"),
        (["digits", "--workers", "0"], "at least one process"),
        (["digits", "--since", "no.json"], "cannot read the earlier check"),
        (["digits", "--near", "off", "--csv", "a.csv"], "in arrays, not files"),
        (["digits", "--htm", "x"], "did you mean --html"),
        ([], "PATH"),
    ],
)
def test_wrong_words(striate, tmp_path, words, message):
    said = striate("data", "check", *words)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    as_json = striate("data", "check", *words, "--json")
    assert (as_json.code, as_json.err) == (2, "")
    assert set(as_json.json) == {"error", "what", "where", "do"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]", '{"files": [{}]}', '{"files": 3}'])
def test_since_something_else(striate, tmp_path, photos, text):
    (tmp_path / "old.json").write_text(text)
    said = striate("data", "check", photos, "--since", "old.json")
    assert said.code == 2
    assert "not an earlier check" in said.err


def test_a_named_set(striate):
    said = striate("data", "check", "digits", "--json", "--quiet")
    assert said.code == 0
    found = said.json
    assert (found["seen"], found["used"]) == (1797, 1797)
    assert found["unsearched_for_near_duplicates"] == 1797  # 8×8: too small
    assert found["files"][0]["hash"] == found["files"][0]["content"]
    [note] = found["findings"]
    assert (note["kind"], note["tone"]) == ("unsearched", "note")


def test_every_file_stands_in_the_json(striate, photos):
    (photos / "bark/.hidden").write_bytes(b"x")
    (photos / "bark/zero.png").touch()
    found = striate("data", "check", photos, "--json", "--near", "off").json
    status = {one["path"]: one["status"] for one in found["files"]}
    assert status["bark/.hidden"] == "ignored"
    assert status["bark/zero.png"] == "quarantined"
    [one] = [f for f in found["files"] if f["path"] == "bark/00.png"]
    assert (one["height"], one["width"], one["format"]) == (40, 40, "PNG")
    assert (one["mode"], one["colored"], one["label"]) == ("RGB", True, "bark")
    assert len(one["hash"]) == 64
    assert one["bytes"] == (photos / "bark/00.png").stat().st_size


# --- D1: exact copies, whatever holds them


def test_equal_pixels_in_every_format(told, photos):
    pixels = np.asarray(Image.open(photos / "bark/00.png"))
    gray = clouds(77, 40, 1)
    comment = {"description": "another camera"}
    names = {
        "a.bmp": encoded(pil_image(pixels), "BMP"),
        "b.tif": encoded(pil_image(pixels), "TIFF", compression="tiff_lzw"),
        "c.webp": encoded(pil_image(pixels), "WEBP", lossless=True),
        "d.png": encoded(pil_image(pixels), "PNG", compress_level=1),
        "e.tif": encoded(pil_image(pixels), "TIFF", **comment),
        "gray.png": encoded(pil_image(gray)),
        "gray3.png": encoded(pil_image(gray.repeat(3, -1))),
    }
    for name, payload in names.items():
        (photos / "bark" / name).write_bytes(payload)
    found = told(photos)
    same = {"bark/00.png", *(f"bark/{n}" for n in names if n[1] == ".")}
    assert members(found["equal"]) == [same, {"bark/gray.png", "bark/gray3.png"}]
    assert found["equal"]["what"].startswith("6 images are exact copies")
    assert "near" not in found
    data = load_data(photos)
    splits = {row.path: row.split for row in data.rows}
    for group in members(found["equal"]):
        assert len({splits[path] for path in group}) == 1


def test_every_planted_exact_leak_is_found(told, photos):
    root = split(photos)
    planted = sorted((root / "train").rglob("*.png"))[::4]
    for path in planted:
        target = root / "test" / path.parent.name / f"was-{path.name}"
        Image.open(path).save(target.with_suffix(".bmp"))
    found = told(root)
    leaked = members(found["leak"])
    assert len(leaked) == len(planted) == 10
    assert all(len(group) == 2 for group in leaked)
    assert found["leak"]["what"] == "10 images of test are also in train: 10 exactly"
    assert found["leak"]["tone"] == "bad"
    # 10 of 30 test images: at most 33.33 points, less what is known anyway.
    assert "They are 33.33\u00a0% of test" in found["leak"]["why"]
    assert "accuracy can gain at most 33.33 points" in found["leak"]["why"]
    assert "0.3333 · (1 − a)" in found["leak"]["why"]


def test_what_a_leak_is_worth():
    """Four test images; three leak, one of them under another label."""
    points = np.array([[0.0], [1.0], [5.0], [0.0], [1.0], [5.0], [9.0]])
    labels = ["x", "x", "y", "x", "y", "y", "y"]
    gain = worth(points, labels, [3, 4, 5, 6], [0, 1, 2], {3: [0], 4: [1], 5: [2]})
    assert gain == Worth(images=4, agreeing=2, differing=1, anyway=1)
    assert (gain.bound, gain.estimate) == (0.5, 0.25)
    alone = worth(points, labels, [3], [0], {3: [0]})
    assert alone == Worth(images=1, agreeing=1, differing=0, anyway=0)


def test_memory_is_worth_what_the_bound_says():
    """A witness: accuracy of a classifier that remembers, measured with and without."""
    chance = np.random.default_rng(0)
    train, test = chance.normal(size=(200, 4)), chance.normal(size=(100, 4))
    labels = chance.choice(["a", "b"], 300).tolist()
    test[:20] = train[:20]
    labels[200:220] = labels[:20]
    points = np.concatenate([train, test])
    copies = {200 + i: [i] for i in range(20)}
    gain = worth(points, labels, range(200, 300), range(200), copies)

    def right(hidden):
        hits = 0
        for i in range(200, 300):
            distance = ((train - points[i]) ** 2).sum(1)
            if hidden and i < 220:
                distance[i - 200] = np.inf
            hits += labels[int(distance.argmin())] == labels[i]
        return hits / 100

    assert gain.estimate == pytest.approx(right(False) - right(True))
    assert 0 < gain.estimate <= gain.bound == 0.2


# --- D3: two labels


def test_one_image_under_two_labels(told, photos):
    shutil.copy(photos / "bark/03.png", photos / "cloth/03-again.png")
    found = told(photos)
    assert members(found["two-labels"]) == [{"bark/03.png", "cloth/03-again.png"}]
    assert found["two-labels"]["tone"] == "bad"
    assert "equal" not in found


def test_a_csv_that_gives_one_file_two_labels(told, tmp_path):
    table = write_table(tmp_path, size=(24, 24))
    with open(table, "a") as file:
        file.write("images/across/00.png,down\n")
    found = told(table, "--near", "off")
    [skip] = found["quarantined"]["files"]
    assert (skip["path"], skip["reason"]) == ("images/across/00.png", "two-labels")


def test_unknown_columns_are_told(told, tmp_path):
    table = write_table(tmp_path, size=(24, 24))
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},wieght", *(f"{x},1" for x in lines[1:])]))
    found = told(table, "--near", "off")
    assert "wieght" in found["layout"]["what"]


# --- classes


def test_small_and_empty_classes(told, photos):
    (photos / "none").mkdir()
    (photos / "broken").mkdir()
    (photos / "broken/a.png").write_bytes(b"x")
    for name, count in (("one", 1), ("four", 4)):
        (photos / name).mkdir()
        for k in range(count):
            pil_image(clouds(900 + 10 * count + k, 40)).save(photos / name / f"{k}.png")
    found = told(photos)
    what = "2 classes without a usable image: none, broken"
    assert found["empty-class"]["what"] == what
    what = "2 classes with under 10 training images: one (1), four (4)"
    assert found["tiny-class"]["what"] == what
    assert found["tiny-class"]["tone"] == "bad"
    assert found["tiny-class"]["why"] == (
        "One image cannot both train and validate: training refuses it."
    )
    assert found["imbalance"]["what"].startswith("classes out of balance, 30:1")
    assert "'bark' is right" in found["imbalance"]["why"] or (
        "'cloth' is right 46.2" in found["imbalance"]["why"]
    )


@pytest.mark.parametrize(
    ("moss", "others", "tone", "why"),
    [
        ({"train": 1, "val": 3}, "val", "warning", "a matter of single images"),
        ({"train": 1}, "val", "bad", "refuses a class of one image."),
        ({"val": 3}, "val", "bad", "refuses a class without a training image"),
        ({"train": 1, "test": 3}, "test", "bad", "Validation is dealt from the"),
    ],
)
def test_a_tiny_class_of_a_given_split(told, tmp_path, moss, others, tone, why):
    """What is said of it is what training does."""
    root = tmp_path / "split"
    for split in ("train", others):
        write_folder(root / split, size=(24, 24), count=20, seed=len(split))
    for split, count in moss.items():
        write_folder(root / split, ["moss"], count, size=(24, 24), seed=9 + len(split))
    found = told(root, "--near", "off")["tiny-class"]
    assert found["tone"] == tone
    assert why in found["why"]
    assert "cannot both" not in found["why"]
    if tone == "warning":
        assert len(load_data(root).labels) == 3
    elif others == "val":
        with pytest.raises(DataError):
            load_data(root)


def test_one_class_only(told, photos):
    shutil.rmtree(photos / "cloth")
    assert told(photos)["one-class"]["what"] == "one class only: bark"


def test_nothing_usable(told, tmp_path):
    root = tmp_path / "set"
    (root / "a").mkdir(parents=True)
    (root / "a/x.png").write_bytes(b"")
    found = told(root)
    assert found["one-class"]["what"] == "there are no usable images"
    assert found["quarantined"]["what"] == "1 file cannot be used: 1 not-an-image"


def test_classes_that_training_has_not(told, photos):
    root = split(photos)
    (root / "test/moss").mkdir()
    for k in range(3):
        pil_image(clouds(700 + k, 40)).save(root / f"test/moss/{k}.png")
    found = told(root)
    what = "test has 1 class that training has not: moss"
    assert found["unseen-class"]["what"] == what


def test_ten_thousand_classes():
    """A catalogue: one image a thing; told in words, not in ten thousand lines."""
    from striate.data.sources.source import from_arrays
    from striate.report.html import render
    from striate.workflows.data_check.findings import page_of, told

    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 16, 16), np.uint8)
    source = from_arrays("things", pixels, [f"thing {k}" for k in range(10_000)])
    found = check_data(source, near=False)
    tiny = next(f for f in found.findings if f.kind == "tiny-class")
    assert tiny.what.startswith("10,000 classes with under 10 training images")
    assert tiny.what.endswith("and 9,995 more")
    assert len(told(found)) < 10
    assert len(render(page_of(found))) < 3_000_000


# --- odd ones


def test_odd_ones(told, photos):
    bark = photos / "bark"
    Image.new("RGB", (40, 40), (90, 90, 90)).save(bark / "blank.png")
    dark = (clouds(1, 40) * 0.1).astype(np.uint8)
    pil_image(dark).save(bark / "dark.png")
    pil_image(255 - dark).save(bark / "pale.png")
    soft = pil_image(clouds(2, 40)).filter(ImageFilter.GaussianBlur(6))
    pil_image(_stretched(np.asarray(soft))).save(bark / "soft.png")
    pil_image(clouds(3, 120)).save(bark / "large.png")
    pil_image(clouds(4, 40, 1)).save(bark / "gray.png")
    found = told(photos)
    for kind in ("blank", "dark", "pale", "color"):
        name = {"color": "gray"}.get(kind, kind)
        assert members(found[kind]) == [{f"bark/{name}.png"}], kind
    assert members(found["blurred"]) == [{"bark/soft.png"}]
    assert members(found["size"]) == [{"bark/large.png"}]
    assert found["color"]["what"] == "1 image is gray"
    assert all(found[k]["tone"] == "warning" for k in ("blank", "dark", "size"))


def _stretched(pixels):
    wide = pixels.astype(float)
    wide = (wide - wide.min()) / (wide.max() - wide.min()) * 220 + 10
    return wide.astype(np.uint8)


def test_a_set_that_was_enlarged_is_soft_as_a_rule(striate, tmp_path):
    """Half of it lies below its own median; that makes no image an odd one."""
    for i, digit in enumerate(load_digits().images[:60]):
        folder = tmp_path / "soft" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((digit * 15).astype("uint8"))
        small.resize((32, 32)).save(folder / f"{i}.png")
    said = striate("data", "check", tmp_path / "soft", "--json")
    assert "blurred" not in {finding["kind"] for finding in said.json["findings"]}


def test_a_set_that_is_odd_as_a_rule_is_not_at_fault(told, tmp_path):
    """All dark, all of different sizes, half of them gray: so it is meant."""
    root = tmp_path / "night"
    for kind, name in enumerate(("owl", "fox")):
        (root / name).mkdir(parents=True)
        for k in range(12):
            pixels = clouds(50 * kind + k, 40 + k, 3 if k % 2 else 1)
            pil_image((pixels * 0.12).astype(np.uint8)).save(root / name / f"{k}.png")
    told(root, code=0)


def test_extreme_sizes_among_many(told, tmp_path):
    root = tmp_path / "mixed"
    for kind, name in enumerate(("owl", "fox")):
        (root / name).mkdir(parents=True)
        for k in range(12):
            pil_image(clouds(50 * kind + k, 40 + k)).save(root / name / f"{k}.png")
    pil_image(clouds(1, 400)).save(root / "owl/poster.png")
    pil_image(clouds(2, 60)[:10]).save(root / "fox/strip.png")
    found = told(root)
    assert members(found["size"]) == [{"fox/strip.png"}, {"owl/poster.png"}]


def test_colored_among_gray(told, tmp_path):
    root = write_folder(tmp_path / "set", size=(24, 24), count=20)
    pil_image(clouds(5, 24)).save(root / "down/tint.png")
    found = told(root, "--near", "off")
    assert found["color"]["what"] == "1 image is colored"


# --- what it leaves


def test_the_page_shows_each_finding_with_its_images(striate, photos, tmp_path):
    shutil.copy(photos / "bark/03.png", photos / "cloth/twin.png")
    Image.new("RGB", (40, 40), (90, 90, 90)).save(photos / "bark/<blank>.png")
    (photos / "bark/page.jpg").write_bytes(b"<!doctype html>")
    (photos / "readme.md").write_text("about")
    before = snapshot(photos)
    said = striate("data", "check", photos, "--html", "out/page.html")
    assert said.code == 1
    assert "page    out/page.html" in said.out
    assert snapshot(photos) == before
    page = (tmp_path / "out/page.html").read_text(encoding="utf-8")
    for text in (
        "Two labels",
        "bark/03.png = cloth/twin.png",
        "Blank",
        "bark/&lt;blank&gt;.png",
        "this is an HTML page",
        "not-in-a-class-folder",
        "64 files seen = 62 used + 1 quarantined + 1 ignored",
    ):
        assert text in page, text
    assert page.count("data:image/png") >= 8
    assert "<blank>" not in page
    assert "://" not in page


def test_a_image_gone_before_the_page_is_made(photos, monkeypatch):
    from striate.workflows.data_check.findings import page_of

    shutil.copy(photos / "bark/03.png", photos / "cloth/twin.png")
    found = check_data(photos, near=False)
    shutil.rmtree(photos)
    titles = [section.title for section in page_of(found).sections]
    assert titles == ["Result", "Two labels", "Classes"]


def test_the_page_of_a_set_in_arrays(striate, tmp_path):
    said = striate("data", "check", "digits", "--html", "page.html")
    assert said.code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Nothing to mend" in page
    assert page.count("data:image/png") == 60  # six of each class


def test_the_table_keeps_copies_on_one_side(striate, photos, tmp_path):
    """Near copies, which a plain split may part, and groups that were given."""
    chance = np.random.default_rng(0)
    for k in range(12):
        pixels = np.asarray(Image.open(photos / f"bark/{k:02d}.png"))
        brighter = (pixels * 1.08).clip(0, 255).astype(np.uint8)
        pil_image(brighter[int(chance.integers(2)) :]).save(
            photos / f"bark/near{k}.png"
        )
    said = striate("data", "check", photos, "--csv", "tables/safe.csv")
    assert said.code == 1
    assert "table   tables/safe.csv" in said.out
    with open(tmp_path / "tables/safe.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    data = load_data(tmp_path / "tables/safe.csv", image_size=24)
    assert len(data.rows) == 72
    bark = [row for row in data.rows if "bark" in row.path]
    split = {row.path.rsplit("/", 1)[1]: row.split for row in bark}
    assert all(split[f"near{k}.png"] == split[f"{k:02d}.png"] for k in range(12))
    assert set(split.values()) == {"train", "val", "test"}


def test_the_table_joins_given_groups_and_copies(striate, tmp_path):
    table = write_table(tmp_path, size=(24, 24), count=6)
    lines = table.read_text().splitlines()
    groups = ["g", "g", "h", "h", "", ""] * 2
    shutil.copy(tmp_path / "images/across/01.png", tmp_path / "images/across/02.png")
    rows = [f"{line},{g}" for line, g in zip(lines[1:], groups, strict=True)]
    table.write_text("\n".join([f"{lines[0]},group", *rows, ""]))
    striate("data", "check", table, "--csv", "out.csv", "--near", "off")
    with open(tmp_path / "out.csv", newline="") as file:
        kept = {r["image_path"][-13:]: r["group"] for r in csv.DictReader(file)}
    joined = {kept[f"across/{k:02d}.png"] for k in range(4)}
    assert len(joined) == 1
    assert kept["across/04.png"] == ""


def test_progress_is_shown_to_a_terminal_only(striate, photos, monkeypatch, capsys):
    from striate.report import progress_bar as bars

    said = striate("data", "check", photos, "--near", "off")
    assert said.err == ""
    real = bars.Console
    monkeypatch.setattr(
        bars, "Console", lambda **o: real(**o, force_terminal=True, width=80)
    )
    said = striate("data", "check", photos, "--near", "off")
    assert "looking" in said.err
    quiet = striate("data", "check", photos, "--near", "off", "--quiet")
    assert quiet.err == ""
