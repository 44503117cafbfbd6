"""`striate data check`: findings, exit codes, reports; the data set is not changed."""

import argparse
import csv
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from striate.cli import data_check
from striate.core.errors import DataError
from striate.data.check.check import check_dataset
from striate.data.check.leaks import LeakImpact, leak_impact
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
def findings_of(striate):
    """Check, assert that nothing was touched, and return findings by kind."""

    def call(root, *words, code=1):
        before = snapshot(root if root.is_dir() else root.parent)
        result = striate("data", "check", root, "--json", *words)
        assert snapshot(root if root.is_dir() else root.parent) == before
        assert (result.code, result.err) == (code, "")
        findings = {f["kind"]: f for f in result.json["findings"]}
        assert len(findings) == len(result.json["findings"])
        return findings

    return call


def members(finding):
    return [set(group["image_paths"]) for group in finding["groups"]]


# --- arguments and exit codes


def test_the_flags_are_frozen():
    """A flag that a user's script may hold changes only on purpose."""
    parser = argparse.ArgumentParser()
    data_check.configure_data_check(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    expected = (
        "--near --offline --labels --ranking --since --html --csv --overwrite "
        "--workers --quiet --help -h"
    )
    assert flags == set(expected.split())


def test_exit_code_0_without_findings(striate, photos):
    result = striate("data", "check", photos)
    assert result.code == 0
    assert "photos  60 files = 60 used + 0 quarantined + 0 ignored" in result.out
    assert "2 classes: bark 30, cloth 30" in result.out
    assert "No problems found." in result.out
    assert "--html" not in result.out


def test_exit_code_1_with_findings_and_their_fix(striate, photos):
    (photos / "bark/cut.jpg").write_bytes(
        encoded(pil_image(clouds(7)), "JPEG")[:900] + b"\xff\xd9"
    )
    for k in range(5):
        shutil.copy(photos / f"cloth/{k:02d}.png", photos / f"cloth/copy{k}.png")
    result = striate("data", "check", photos)
    assert result.code == 1
    assert "1 file cannot be used: 1 truncated" in result.out
    assert "bark/cut.jpg: truncated" in result.out
    assert "fix: copy the files again" in result.out
    assert "5 images are exact duplicates of other images" in result.out
    assert "cloth/00.png, cloth/copy0.png" in result.out
    assert "… and 2 more" in result.out
    assert "--html FILE writes a report with images" in result.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no such file, folder or data set: nowhere"),
        (["digit"], "did you mean digits?"),
        (["digits", "--near", "maybe"], "maybe"),
        (["digits", "--workers", "0"], "the number of processes"),
        (["digits", "--since", "no.json"], "cannot read the earlier check"),
        (["digits", "--near", "off", "--csv", "a.csv"], "are in arrays, not files"),
        (["digits", "--htm", "x"], "did you mean --html"),
        ([], "PATH"),
    ],
)
def test_wrong_arguments(striate, tmp_path, words, message):
    result = striate("data", "check", *words)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    as_json = striate("data", "check", *words, "--json")
    assert (as_json.code, as_json.err) == (2, "")
    assert set(as_json.json) == {"error", "what", "where", "do"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]", '{"files": [{}]}', '{"files": 3}'])
def test_since_needs_an_earlier_check(striate, tmp_path, photos, text):
    (tmp_path / "old.json").write_text(text)
    result = striate("data", "check", photos, "--since", "old.json")
    assert result.code == 2
    assert "not the output of `data check --json`" in result.err


def test_a_named_set(striate):
    result = striate("data", "check", "digits", "--json", "--quiet")
    assert result.code == 0
    findings = result.json
    assert (findings["file_count"], findings["used"]) == (1797, 1797)
    assert findings["unsearched_for_near_duplicates"] == 1797  # 8×8: too small
    assert findings["files"][0]["hash"] == findings["files"][0]["content"]
    [note] = findings["findings"]
    assert (note["kind"], note["tone"]) == ("unsearched", "note")


def test_every_file_stands_in_the_json(striate, photos):
    (photos / "bark/.hidden").write_bytes(b"x")
    (photos / "bark/zero.png").touch()
    findings = striate("data", "check", photos, "--json", "--near", "off").json
    status = {file["image_path"]: file["status"] for file in findings["files"]}
    assert status["bark/.hidden"] == "ignored"
    assert status["bark/zero.png"] == "quarantined"
    [file] = [f for f in findings["files"] if f["image_path"] == "bark/00.png"]
    assert (file["height"], file["width"], file["format"]) == (40, 40, "PNG")
    assert (file["mode"], file["colored"], file["label"]) == ("RGB", True, "bark")
    assert len(file["hash"]) == 64
    assert file["bytes"] == (photos / "bark/00.png").stat().st_size


# --- D1: exact copies, whatever holds them


def test_equal_pixels_in_every_format(findings_of, photos):
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
    findings = findings_of(photos)
    same = {"bark/00.png", *(f"bark/{n}" for n in names if n[1] == ".")}
    assert members(findings["exact-duplicates"]) == [
        same,
        {"bark/gray.png", "bark/gray3.png"},
    ]
    assert findings["exact-duplicates"]["what"].startswith(
        "6 images are exact duplicates"
    )
    assert "near-duplicates" not in findings
    data = load_data(photos)
    splits = {row.path: row.split for row in data.rows}
    for group in members(findings["exact-duplicates"]):
        assert len({splits[path] for path in group}) == 1


def test_every_planted_exact_leak_is_found(findings_of, photos):
    root = split(photos)
    planted = sorted((root / "train").rglob("*.png"))[::4]
    for path in planted:
        target = root / "test" / path.parent.name / f"was-{path.name}"
        Image.open(path).save(target.with_suffix(".bmp"))
    findings = findings_of(root)
    leaked = members(findings["leak"])
    assert len(leaked) == len(planted) == 10
    assert all(len(group) == 2 for group in leaked)
    assert findings["leak"]["what"] == "10 images of test are also in train: 10 exact"
    assert findings["leak"]["tone"] == "bad"
    # 10 of 30 test images: at most 33.33 points.
    assert "These are 33.33\u00a0% of test" in findings["leak"]["why"]
    assert "too high by at most 33.33 points" in findings["leak"]["why"]
    assert "0.3333 · (1 − a)" in findings["leak"]["why"]


def test_leak_impact():
    """Four test images; three leak, one of them under another label."""
    points = np.array([[0.0], [1.0], [5.0], [0.0], [1.0], [5.0], [9.0]])
    labels = ["x", "x", "y", "x", "y", "y", "y"]
    impact = leak_impact(
        points, labels, [3, 4, 5, 6], [0, 1, 2], {3: [0], 4: [1], 5: [2]}
    )
    assert impact == LeakImpact(images=4, same_label=2, other_label=1, correct_anyway=1)
    assert (impact.bound, impact.estimate) == (0.5, 0.25)
    alone = leak_impact(points, labels, [3], [0], {3: [0]})
    assert alone == LeakImpact(images=1, same_label=1, other_label=0, correct_anyway=0)


def test_leak_impact_is_the_gain_of_a_memorizing_classifier():
    """A witness: accuracy of a classifier that remembers, measured with and without."""
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(200, 4)), rng.normal(size=(100, 4))
    labels = rng.choice(["a", "b"], 300).tolist()
    test[:20] = train[:20]
    labels[200:220] = labels[:20]
    points = np.concatenate([train, test])
    copies = {200 + i: [i] for i in range(20)}
    impact = leak_impact(points, labels, range(200, 300), range(200), copies)

    def right(hidden):
        hits = 0
        for i in range(200, 300):
            distance = ((train - points[i]) ** 2).sum(1)
            if hidden and i < 220:
                distance[i - 200] = np.inf
            hits += labels[int(distance.argmin())] == labels[i]
        return hits / 100

    assert impact.estimate == pytest.approx(right(False) - right(True))
    assert 0 < impact.estimate <= impact.bound == 0.2


# --- D3: conflicting labels


def test_one_image_under_two_labels(findings_of, photos):
    shutil.copy(photos / "bark/03.png", photos / "cloth/03-again.png")
    findings = findings_of(photos)
    assert members(findings["two-labels"]) == [{"bark/03.png", "cloth/03-again.png"}]
    assert findings["two-labels"]["tone"] == "bad"
    assert "exact-duplicates" not in findings


def test_a_csv_that_gives_one_file_two_labels(findings_of, tmp_path):
    table = write_table(tmp_path, size=(24, 24))
    with open(table, "a") as file:
        file.write("images/across/00.png,down\n")
    findings = findings_of(table, "--near", "off")
    [skip] = findings["quarantined"]["files"]
    assert (skip["image_path"], skip["reason"]) == (
        "images/across/00.png",
        "two-labels",
    )


def test_unknown_columns_are_reported(findings_of, tmp_path):
    table = write_table(tmp_path, size=(24, 24))
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},wieght", *(f"{x},1" for x in lines[1:])]))
    findings = findings_of(table, "--near", "off")
    assert "wieght" in findings["layout"]["what"]


# --- classes


def test_small_and_empty_classes(findings_of, photos):
    (photos / "none").mkdir()
    (photos / "broken").mkdir()
    (photos / "broken/a.png").write_bytes(b"x")
    for name, count in (("one", 1), ("four", 4)):
        (photos / name).mkdir()
        for k in range(count):
            pil_image(clouds(900 + 10 * count + k, 40)).save(photos / name / f"{k}.png")
    findings = findings_of(photos)
    what = "2 classes without a usable image: none, broken"
    assert findings["empty-class"]["what"] == what
    what = "2 classes with fewer than 10 training images: one (1), four (4)"
    assert findings["tiny-class"]["what"] == what
    assert findings["tiny-class"]["tone"] == "bad"
    assert findings["tiny-class"]["why"] == (
        "A class with one image cannot be in both train and val: training stops."
    )
    assert findings["imbalance"]["what"].startswith("imbalanced classes (30:1)")
    assert "'bark' gives" in findings["imbalance"]["why"] or (
        "'cloth' gives 46.2" in findings["imbalance"]["why"]
    )


@pytest.mark.parametrize(
    ("moss", "others", "tone", "why"),
    [
        ({"train": 1, "val": 3}, "val", "warning", "depends on single images"),
        ({"train": 1}, "val", "bad", "if a class has only one image."),
        ({"val": 3}, "val", "bad", "if a class has no training image"),
        ({"train": 1, "test": 3}, "test", "bad", "taken from the training images"),
    ],
)
def test_a_tiny_class_of_a_given_split(findings_of, tmp_path, moss, others, tone, why):
    """What is said of it is what training does."""
    root = tmp_path / "split"
    for split in ("train", others):
        write_folder(root / split, size=(24, 24), count=20, seed=len(split))
    for split, count in moss.items():
        write_folder(root / split, ["moss"], count, size=(24, 24), seed=9 + len(split))
    findings = findings_of(root, "--near", "off")["tiny-class"]
    assert findings["tone"] == tone
    assert why in findings["why"]
    assert "cannot be in both" not in findings["why"]
    if tone == "warning":
        assert len(load_data(root).labels) == 3
    elif others == "val":
        with pytest.raises(DataError):
            load_data(root)


def test_one_class_only(findings_of, photos):
    shutil.rmtree(photos / "cloth")
    assert findings_of(photos)["one-class"]["what"] == "only one class: bark"


def test_nothing_usable(findings_of, tmp_path):
    root = tmp_path / "set"
    (root / "a").mkdir(parents=True)
    (root / "a/x.png").write_bytes(b"")
    findings = findings_of(root)
    assert findings["one-class"]["what"] == "there are no usable images"
    assert findings["quarantined"]["what"] == "1 file cannot be used: 1 not-an-image"


def test_classes_without_training_images(findings_of, photos):
    root = split(photos)
    (root / "test/moss").mkdir()
    for k in range(3):
        pil_image(clouds(700 + k, 40)).save(root / f"test/moss/{k}.png")
    findings = findings_of(root)
    what = "the test split has 1 class without training images: moss"
    assert findings["unseen-class"]["what"] == what


def test_ten_thousand_classes():
    """A catalogue: one image a thing; told in words, not in ten thousand lines."""
    from striate.data.sources.source import from_arrays
    from striate.report.html import render_page
    from striate.workflows.data_check.findings import data_check_blocks, data_check_page

    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 16, 16), np.uint8)
    source = from_arrays("things", pixels, [f"thing {k}" for k in range(10_000)])
    findings = check_dataset(source, near=False)
    tiny = next(f for f in findings.findings if f.kind == "tiny-class")
    assert tiny.what.startswith("10,000 classes with fewer than 10 training images")
    assert tiny.what.endswith("and 9,995 more")
    assert len(data_check_blocks(findings)) < 10
    assert len(render_page(data_check_page(findings))) < 3_000_000


# --- outliers


def test_outliers(findings_of, photos):
    bark = photos / "bark"
    Image.new("RGB", (40, 40), (90, 90, 90)).save(bark / "blank.png")
    dark = (clouds(1, 40) * 0.1).astype(np.uint8)
    pil_image(dark).save(bark / "dark.png")
    pil_image(255 - dark).save(bark / "bright.png")
    soft = pil_image(clouds(2, 40)).filter(ImageFilter.GaussianBlur(6))
    pil_image(_stretched(np.asarray(soft))).save(bark / "soft.png")
    pil_image(clouds(3, 120)).save(bark / "large.png")
    pil_image(clouds(4, 40, 1)).save(bark / "gray.png")
    findings = findings_of(photos)
    for kind in ("blank", "dark", "bright", "color"):
        name = {"color": "gray"}.get(kind, kind)
        assert members(findings[kind]) == [{f"bark/{name}.png"}], kind
    assert members(findings["blurred"]) == [{"bark/soft.png"}]
    assert members(findings["size"]) == [{"bark/large.png"}]
    assert findings["color"]["what"] == "1 image is gray"
    assert all(findings[k]["tone"] == "warning" for k in ("blank", "dark", "size"))


def _stretched(pixels):
    wide = pixels.astype(float)
    wide = (wide - wide.min()) / (wide.max() - wide.min()) * 220 + 10
    return wide.astype(np.uint8)


def test_an_enlarged_data_set_has_no_blurred_outliers(striate, tmp_path):
    """Half of it lies below its own median; that makes no image an odd one."""
    for i, digit in enumerate(load_digits().images[:60]):
        folder = tmp_path / "soft" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((digit * 15).astype("uint8"))
        small.resize((32, 32)).save(folder / f"{i}.png")
    result = striate("data", "check", tmp_path / "soft", "--json")
    assert "blurred" not in {finding["kind"] for finding in result.json["findings"]}


def test_a_dark_data_set_has_no_dark_outliers(findings_of, tmp_path):
    """All dark, all of different sizes, half of them gray: so it is meant."""
    root = tmp_path / "night"
    for kind, name in enumerate(("owl", "fox")):
        (root / name).mkdir(parents=True)
        for k in range(12):
            pixels = clouds(50 * kind + k, 40 + k, 3 if k % 2 else 1)
            pil_image((pixels * 0.12).astype(np.uint8)).save(root / name / f"{k}.png")
    findings_of(root, code=0)


def test_extreme_sizes_among_many(findings_of, tmp_path):
    root = tmp_path / "mixed"
    for kind, name in enumerate(("owl", "fox")):
        (root / name).mkdir(parents=True)
        for k in range(12):
            pil_image(clouds(50 * kind + k, 40 + k)).save(root / name / f"{k}.png")
    pil_image(clouds(1, 400)).save(root / "owl/poster.png")
    pil_image(clouds(2, 60)[:10]).save(root / "fox/strip.png")
    findings = findings_of(root)
    assert members(findings["size"]) == [{"fox/strip.png"}, {"owl/poster.png"}]


def test_colored_among_gray(findings_of, tmp_path):
    root = write_folder(tmp_path / "set", size=(24, 24), count=20)
    pil_image(clouds(5, 24)).save(root / "down/tint.png")
    findings = findings_of(root, "--near", "off")
    assert findings["color"]["what"] == "1 image is in color"


# --- reports and tables


def test_the_page_shows_each_finding_with_its_images(striate, photos, tmp_path):
    shutil.copy(photos / "bark/03.png", photos / "cloth/twin.png")
    Image.new("RGB", (40, 40), (90, 90, 90)).save(photos / "bark/<blank>.png")
    (photos / "bark/page.jpg").write_bytes(b"<!doctype html>")
    (photos / "readme.md").write_text("about")
    before = snapshot(photos)
    result = striate("data", "check", photos, "--html", "out/page.html")
    assert result.code == 1
    assert "page    out/page.html" in result.out
    assert snapshot(photos) == before
    page = (tmp_path / "out/page.html").read_text(encoding="utf-8")
    for text in (
        "Same image, different labels",
        "bark/03.png, cloth/twin.png",
        "Blank images",
        "bark/&lt;blank&gt;.png",
        "this is an HTML page",
        "not-in-a-class-folder",
        "64 files = 60 used + 3 quarantined + 1 ignored",
    ):
        assert text in page, text
    assert page.count("data:image/png") >= 8
    assert "<blank>" not in page
    assert "://" not in page


def test_an_image_removed_before_the_page_is_made(photos, monkeypatch):
    from striate.workflows.data_check.findings import data_check_page

    shutil.copy(photos / "bark/03.png", photos / "cloth/twin.png")
    findings = check_dataset(photos, near=False)
    shutil.rmtree(photos)
    titles = [section.title for section in data_check_page(findings).sections]
    assert titles == ["Summary", "Same image, different labels", "Classes"]


def test_the_page_of_a_set_in_arrays(striate, tmp_path):
    result = striate("data", "check", "digits", "--html", "page.html")
    assert result.code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No problems found" in page
    assert page.count("data:image/png") == 60  # six of each class


def test_the_table_keeps_duplicates_in_one_split(striate, photos, tmp_path):
    """Near copies, which a plain split may part, and groups that were given."""
    rng = np.random.default_rng(0)
    for k in range(12):
        pixels = np.asarray(Image.open(photos / f"bark/{k:02d}.png"))
        brighter = (pixels * 1.08).clip(0, 255).astype(np.uint8)
        pil_image(brighter[int(rng.integers(2)) :]).save(photos / f"bark/near{k}.png")
    result = striate("data", "check", photos, "--csv", "tables/safe.csv")
    assert result.code == 1
    assert "table   tables/safe.csv" in result.out
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
        group_by_path = {
            r["image_path"][-13:]: r["group"] for r in csv.DictReader(file)
        }
    joined = {group_by_path[f"across/{k:02d}.png"] for k in range(4)}
    assert len(joined) == 1
    assert group_by_path["across/04.png"] == ""


def test_progress_is_shown_to_a_terminal_only(striate, photos, monkeypatch, capsys):
    from striate.report import progress as bars

    result = striate("data", "check", photos, "--near", "off")
    assert result.err == ""
    real = bars.Console
    monkeypatch.setattr(
        bars, "Console", lambda **o: real(**o, force_terminal=True, width=80)
    )
    result = striate("data", "check", photos, "--near", "off")
    assert "checking images" in result.err
    quiet = striate("data", "check", photos, "--near", "off", "--quiet")
    assert quiet.err == ""
