"""`striate data check` of shards and addresses: what a folder would be told, they are.

The folder itself is the witness: its images are put into tars and into an object
store in memory, and all three are checked.
"""

import shutil
import tarfile

import pytest
from PIL import Image

from striate.data.check.check import check_dataset
from striate.data.shards import index
from striate.workflows.data_check.findings import data_check_page
from striate.workflows.data_check.thumbnails import common_folder
from support.images import encoded, pil_image, snapshot, write_folder
from support.planted_copies import clouds
from support.tar_shards import add


@pytest.fixture
def photos(tmp_path):
    """Sound images of two classes, and five that are not as they should be."""
    root = tmp_path / "photos"
    for kind, name in enumerate(("bark", "cloth")):
        (root / name).mkdir(parents=True)
        for k in range(12):
            pil_image(clouds(100 * kind + k, 40)).save(root / name / f"{k:02d}.png")
    (root / "bark/cut.png").write_bytes((root / "bark/00.png").read_bytes()[:-30])
    (root / "bark/page.jpg").write_bytes(b"<!doctype html>")
    (root / "cloth/zero.png").touch()
    Image.new("RGB", (40, 40), (90, 90, 90)).save(root / "bark/blank.png")
    shutil.copy(root / "bark/03.png", root / "cloth/twin.png")
    return root


def files_of(root):
    return [path for path in sorted(root.rglob("*")) if path.is_file()]


def pack_result(root, *shards):
    """Put a folder's files into tars in turn, and return the first."""
    shards = shards or (root.parent / "s.tar",)
    for number, shard in enumerate(shards):
        shard.parent.mkdir(exist_ok=True)
        with tarfile.open(shard, "w") as tar:
            for path in files_of(root)[number :: len(shards)]:
                add(tar, str(path.relative_to(root)), path.read_bytes())
    return shards[0]


def uploaded(memory, root, address="memory://bucket/photos"):
    for path in files_of(root):
        name = path.relative_to(root)
        memory.pipe(f"/{address.partition('://')[2]}/{name}", path.read_bytes())
    return address


@pytest.fixture
def elsewhere(request, memory, photos):
    """The same images: (data, what the paths of its records begin with)."""

    def call(place):
        if place == "tar":
            return (tar := pack_result(photos)), f"{tar}/"
        if place == "remote tar":
            memory.pipe("/bucket/s.tar", pack_result(photos).read_bytes())
            return "memory://bucket/s.tar", "memory://bucket/s.tar/"
        return uploaded(memory, photos), ""

    return call


def without(text, base):
    return text.replace(base, "") if base else text


@pytest.mark.parametrize("place", ["tar", "remote tar", "address"])
def test_it_is_told_what_a_folder_is_told(striate, tmp_path, photos, elsewhere, place):
    data, base = elsewhere(place)
    words = ("--json", "--html")
    near = striate("data", "check", photos, *words, "near.html")
    before = snapshot(photos)
    far = striate("data", "check", data, *words, "far.html")
    assert snapshot(photos) == before
    assert (near.code, near.err, far.code, far.err) == (1, "", 1, "")
    assert (far.json["file_count"], far.json["used"], far.json["quarantined"]) == (
        29,
        24,
        5,
    )
    ours, theirs = near.json, far.json
    for data in (ours, theirs):
        data["files"].sort(key=lambda file: file["image_path"])
    for file in theirs["files"]:
        file["image_path"] = without(file["image_path"], base)
        if file["image_path"] == "cloth/zero.png":
            assert file["reason"] == "not-an-image"
        if file.get("reason") == "two-labels":  # names the other image
            file["detail"] = without(file["detail"], base)
    assert theirs["files"] == ours["files"]
    assert {f["image_path"]: f["reason"] for f in ours["files"] if "reason" in f} == {
        "bark/cut.png": "truncated",
        "bark/page.jpg": "not-an-image",
        "cloth/zero.png": "not-an-image",
        **dict.fromkeys(("bark/03.png", "cloth/twin.png"), "two-labels"),
    }
    assert [f["what"] for f in theirs["findings"]] == [
        f["what"] for f in ours["findings"]
    ]
    pages = [(tmp_path / f"{n}.html").read_text("utf-8") for n in ("near", "far")]
    shown = [page.count("data:image/png") for page in pages]
    assert shown[0] == shown[1] >= 14
    assert "bark/03.png, cloth/twin.png" in pages[1]
    assert ("this is an HTML page" in pages[1]) is True


def test_no_image_is_decoded_in_this_process(photos, monkeypatch):
    """A decoder that dies would take the check with it."""

    def dies(*words):
        raise AssertionError("decoded here")

    monkeypatch.setattr(index, "decode_image", dies)
    monkeypatch.setattr("striate.data.check.image_stats.decode_with_info", dies)
    data = check_dataset(pack_result(photos), near=False)
    assert (len(data.items), len(data.quarantined)) == (26, 5)


def test_shards_that_name_their_split(striate, tmp_path, photos):
    shards = [tmp_path / "set" / f"p-{split}-0.tar" for split in ("train", "test")]
    pack_result(photos, *shards)
    data = striate("data", "check", tmp_path / "set", "--json", "--near", "off").json
    assert data["used"] == 26
    assert {f.get("split") for f in data["files"] if f["status"] == "used"} == {
        "train",
        "test",
    }


def test_a_tar_that_breaks_off_is_one_finding(striate, tmp_path, photos):
    """What came before stays, and so does every other shard."""
    shards = [tmp_path / "set" / f"p-{k}.tar" for k in range(2)]
    pack_result(photos, *shards)
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[: whole.index(b"cloth/05.png\0") + 600])
    (tmp_path / "set/p-9.tar").write_bytes(b"no tar at all")
    data = striate("data", "check", tmp_path / "set", "--json", "--near", "off").json
    assert data["file_count"] == len(data["files"])
    broken = [f for f in data["files"] if f["image_path"].endswith(".tar")]
    assert {(f["image_path"][-7:], f["reason"]) for f in broken} == {
        ("p-0.tar", "damaged"),
        ("p-9.tar", "damaged"),
    }
    assert 15 < data["used"] < 26


def test_what_else_a_tar_holds(striate, tmp_path, photos):
    tar = pack_result(photos)
    with tarfile.open(tar, "a") as more:
        add(more, "bark/notes.txt", b"words")
        add(more, "loose.png", encoded(pil_image(clouds(5, 40))))
        add(more, "bark/00.png", encoded(pil_image(clouds(6, 40))))
        link = tarfile.TarInfo("bark/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        more.addfile(link)
    data = striate("data", "check", tar, "--json", "--near", "off").json
    files = {f["image_path"].removeprefix(f"{tar}/"): f for f in data["files"]}
    assert len(files) == data["file_count"] == 33
    findings = {name: f["reason"] for name, f in files.items() if "reason" in f}
    assert findings["bark/notes.txt"] == "not-read-here"
    assert findings["loose.png"] == "no-label"
    assert findings["bark/link.png"] == "not-a-file"
    [again] = [name for name in files if name.startswith("bark/00.png#")]
    assert files[again]["content"] != files["bark/00.png"]["content"]


@pytest.mark.parametrize("place", ["tar", "remote tar", "address"])
def test_since_an_earlier_check(striate, tmp_path, photos, memory, elsewhere, place):
    data, base = elsewhere(place)
    quick = ("--near", "off", "--json")
    (tmp_path / "scan.json").write_text(striate("data", "check", data, *quick).out)
    pil_image(clouds(77, 40)).save(photos / "bark/05.png")
    (photos / "cloth/06.png").unlink()
    memory.store.clear()
    elsewhere(place)
    result = striate("data", "check", data, *quick, "--since", "scan.json")
    findings = {f["kind"]: f for f in result.json["findings"]}
    for kind, path in (("changed", "bark/05.png"), ("removed", "cloth/06.png")):
        assert [f["image_path"] for f in findings[kind]["files"]] == [f"{base}{path}"]


def test_a_place_that_fails_while_it_looks(striate, memory, photos, monkeypatch):
    address = uploaded(memory, photos)
    real = type(memory).cat_file

    def cat_file(place, path, *words, **options):
        if path.endswith("bark/01.png"):
            raise ConnectionResetError("the line is dead")
        if path.endswith("bark/02.png"):
            raise FileNotFoundError(path)
        return real(place, path, *words, **options)

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    data = striate("data", "check", address, "--json", "--near", "off").json
    findings = {f["image_path"]: (f["reason"], f["detail"]) for f in data["files"][24:]}
    line = "ConnectionResetError: the line is dead"
    assert findings["bark/01.png"] == ("unreadable", line)
    assert findings["bark/02.png"] == ("missing", "no such file")
    assert (data["used"], data["quarantined"]) == (22, 7)


@pytest.mark.parametrize("place", ["tar", "address"])
def test_a_table_cannot_name_them(striate, tmp_path, elsewhere, place):
    data, _ = elsewhere(place)
    result = striate("data", "check", data, "--near", "off", "--csv", "a.csv")
    assert result.code == 2
    assert "are in shards or at a URL" in result.err
    assert not (tmp_path / "a.csv").exists()


def test_images_gone_before_the_page_is_made(memory, photos):
    data = check_dataset(uploaded(memory, photos), near=False)
    memory.store.clear()
    titles = [section.title for section in data_check_page(data).sections]
    assert titles[0] == "Summary"


def test_an_address_keeps_its_slashes(memory, photos):
    memory.pipe("/bucket/s.tar", pack_result(photos).read_bytes())
    data = check_dataset("memory://bucket/s.tar", near=False)
    assert common_folder(data) == "memory://bucket/s.tar/"


def test_labels_of_shards_are_judged(striate, tmp_path):
    """The files are read again for it, by the names of the check."""
    shard = pack_result(write_folder(tmp_path / "small", count=13))
    result = striate("data", "check", shard, "--labels", "--json", "--quiet")
    assert result.err == ""
    assert result.json["labels"]["checked"] == 26
