"""Sources of arrays: IDX files, named sets, arrays in memory."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.data.cache import free_memory as memory
from striate.data.find_source import find_source
from striate.data.load import load_data, load_labeled
from striate.data.load_options import LoadOptions
from striate.data.sources.idx import read_idx
from striate.data.sources.named import FASHION_CLASSES, fashion_mnist
from striate.data.sources.source import from_arrays

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 5), np.uint8)
NUMBERS = (np.arange(40) % 3).astype(np.uint8)


def idx(array):
    sides = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + sides + array.tobytes()


def write(folder, prefix="train", pixels=PIXELS, numbers=NUMBERS, zipped=False):
    folder.mkdir(exist_ok=True)
    for kind, array in (("images-idx3", pixels), ("labels-idx1", numbers)):
        payload = idx(array)
        name = f"{prefix}-{kind}-ubyte" + ".gz" * zipped
        (folder / name).write_bytes(gzip.compress(payload) if zipped else payload)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path, zipped):
    folder = write(tmp_path / "set", zipped=zipped)
    write(folder, "t10k", PIXELS[:9], NUMBERS[:9], zipped)
    for data in (folder, next(folder.glob("train-images*"))):
        source = find_source(data)
        assert (source.arrays[:40, ..., 0] == PIXELS).all()
        assert source.labels.names == ("0", "1", "2")
        assert [r.split for r in source.records] == ["train"] * 40 + ["test"] * 9
    data = load_data(folder, exact=True)
    assert {n: len(p) for n, p in data.subsets.items()} == {
        "train": 34,
        "val": 6,
        "test": 9,
    }
    assert data.num_files == len(data.rows) + len(data.quarantined)


def damage(folder, name, change):
    path = next(folder.glob(name))
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("zipped", "change", "message"),
    [
        (False, lambda b: b[:-7], "expected 1,200 bytes of data, got 1,193"),
        (False, lambda b: b + b"x", "expected 1,200 bytes of data, got 1,201"),
        (False, lambda b: b[:10], "bytes of data, got"),
        (False, lambda b: b[:3], "not an IDX file of unsigned bytes in 3 dimensions"),
        (False, lambda b: b"", "not an IDX file"),
        (False, lambda b: b"\0\0\x0d" + b[3:], "not an IDX file"),
        (True, lambda b: b[: len(b) // 2], "the file is damaged"),
        (True, lambda b: b[:20] + b"\xff" * 9 + b[29:], "the file is damaged"),
        (True, lambda b: b[:-8] + bytes(8), "the file is damaged"),
    ],
)
def test_damaged_idx(refused, tmp_path, zipped, change, message):
    folder = write(tmp_path / "set", zipped=zipped)
    damage(folder, "*images*", change)
    message_text = refused(folder)
    assert message in message_text
    assert "train-images-idx3-ubyte" in message_text


def test_idx_files_that_do_not_match(tmp_path):
    with pytest.raises(DataError, match="40 images but 39 labels in 'train'"):
        read_idx(write(tmp_path / "a", numbers=NUMBERS[:39]))
    folder = write(tmp_path / "b")
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="the IDX file train-labels is missing"):
        read_idx(folder)
    folder = write(tmp_path / "c")
    write(folder, "t10k", PIXELS[:, :4], NUMBERS)
    with pytest.raises(DataError, match=r"'test' images are \(4, 5\)|'t10k' images"):
        read_idx(folder)
    with pytest.raises(DataError, match="found label 2, but there are only 2 classes"):
        read_idx(write(tmp_path / "d"), names=("a", "b"))
    with pytest.raises(DataError, match="the IDX files contain no images"):
        read_idx(write(tmp_path / "e", pixels=PIXELS[:0], numbers=NUMBERS[:0]))


def test_digits():
    source = find_source("digits")
    assert source.arrays.shape == (1797, 8, 8, 1)
    assert (source.arrays.min(), source.arrays.max()) == (0, 255)
    assert source.labels.names == tuple("0123456789")
    with pytest.raises(TypeError, match="has no files"):
        source.payload(0)


def test_a_name_takes_precedence_over_a_folder(tmp_path):
    (tmp_path / "digits").mkdir()
    assert find_source("digits").name == "digits"
    with pytest.raises(DataError, match="the folder is empty"):
        find_source("./digits/.")


INSTALLED = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not INSTALLED.is_dir(), reason=f"{INSTALLED} is not installed")
def test_fashion_mnist():
    source = fashion_mnist()
    assert source.arrays.shape == (70_000, 28, 28, 1)
    assert source.labels.names == FASHION_CLASSES
    labels = [record.label for record in source.records]
    for rows, each in ((slice(60_000), 6_000), (slice(60_000, None), 1_000)):
        assert {labels[rows].count(name) for name in FASHION_CLASSES} == {each}


def test_where_fashion_mnist_is_searched(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_DIRS", f"{tmp_path}/one:{tmp_path}/two:")
    with pytest.raises(DataError, match="fashion-mnist is not on this machine") as c:
        fashion_mnist()
    assert "install the system package dataset-fashion-mnist" in str(c.value)
    assert f"{tmp_path}/two/datasets/fashion-mnist" in str(c.value)
    place = tmp_path / "two/datasets"
    place.mkdir(parents=True)
    write(place / "fashion-mnist")
    assert fashion_mnist().records[0].label == "T-shirt/top"


def test_from_arrays():
    for wrong in (PIXELS.astype(np.float32), PIXELS[0]):
        with pytest.raises(ValueError, match=r"must be uint8 \(N, H, W\[, C\]\)"):
            from_arrays("toy", wrong, ["a"] * len(wrong))
    with pytest.raises(ValueError, match="40 images but 1 label"):
        from_arrays("toy", PIXELS, ["a"])
    source = from_arrays("toy", PIXELS, [f"{n}" for n in NUMBERS])
    assert [r.path for r in source.records[:2]] == ["toy/00", "toy/01"]
    data = load_data(source, image_size=(9, 7))
    assert (data.image_size, data.in_chans, data.num_classes) == ((9, 7), 1, 3)
    with pytest.raises(
        DataError, match="'toy' has no extra split, only train, val, test"
    ):
        data.subset("extra")


def test_arrays_of_many_channels():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 5), np.uint8)
    source = from_arrays("sat", pixels, ["ab"[i % 2] for i in range(30)])
    data = load_data(source)
    assert data.in_chans == 5
    assert len(data.preprocess.mean) == 5


def test_two_labels_in_arrays_drop_the_right_rows():
    pixels = PIXELS.copy()
    pixels[1] = pixels[0]
    source = from_arrays("toy", pixels, [f"{n}" for n in NUMBERS])
    data = load_data(source)
    assert [s.path for s in data.quarantined] == ["toy/00", "toy/01"]
    assert data.num_files == 40
    for subset in data.subsets.values():
        for row, path in zip(subset.pixels, subset.paths, strict=True):
            assert (row[..., 0].numpy() == pixels[int(path.split("/")[1])]).all()


def test_an_earlier_split_is_reused():
    source = from_arrays("toy", PIXELS, [f"{n}" for n in NUMBERS])
    first = load_data(source, seed=3)
    split_by_path = {row.path: row.split for row in first.rows[5:]}
    again = load_data(
        source,
        options=LoadOptions(preprocess=first.preprocess, given_split=split_by_path),
    )
    assert {r.path: r.split for r in again.rows} == split_by_path
    assert [s.reason for s in again.ignored] == ["not-in-split"] * 5


def test_load_labeled():
    source = from_arrays("toy", PIXELS, [f"{n}" for n in NUMBERS])
    data = load_data(source)
    shuffled = ClassNames(("2", "0", "1"))
    subset, skipped = load_labeled(source, data.preprocess, shuffled)
    assert [shuffled[i] for i in subset.labels.tolist()] == [f"{n}" for n in NUMBERS]
    assert skipped == ()
    with pytest.raises(DataError, match="'toy' has no val split"):
        load_labeled(source, data.preprocess, shuffled, "val")
    with pytest.raises(DataError, match="the network lacks these classes: 2"):
        load_labeled(source, data.preprocess, ClassNames(("0", "1")))


def test_available_memory_includes_caches(monkeypatch, tmp_path):
    """Free pages do not include the caches, which reading the images has filled."""
    available = memory.available_bytes()
    assert available > 1 << 24
    assert memory.fits_in_memory(0.5 * available)
    assert not memory.fits_in_memory(2 * available)

    def nowhere(self, *words, **options):
        raise OSError

    monkeypatch.setattr(Path, "read_text", nowhere)
    assert memory.available_bytes() > 0

    def unknown(name):
        raise ValueError

    monkeypatch.setattr(memory.os, "sysconf", unknown)
    assert memory.available_bytes() is None
    assert memory.fits_in_memory(10**18)


def test_a_container_may_have_less_memory_than_its_machine(monkeypatch, tmp_path):
    """In cgroups of version 2 and 1: the limit of the group or of a parent."""
    own, groups = tmp_path / "own", tmp_path / "groups"
    monkeypatch.setattr(memory, "_OWN", own)
    monkeypatch.setattr(memory, "_GROUPS", groups)
    monkeypatch.setattr(memory, "_of_system", lambda: 1 << 40)
    assert memory.available_bytes() == 1 << 40

    own.write_text("0::/box/task\n")
    for name, most in (("box", "3000"), ("box/task", "max")):
        (groups / name).mkdir(parents=True)
        (groups / name / "memory.max").write_text(f"{most}\n")
        (groups / name / "memory.current").write_text("1000\n")
        (groups / name / "memory.stat").write_text("anon 9\ninactive_file 500\n")
    assert memory.available_bytes() == 2500

    own.write_text("4:memory:/box\n3:cpu:/\n")
    old = groups / "memory" / "box"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("900")
    (old / "memory.usage_in_bytes").write_text("1000")
    (old / "memory.stat").write_text("total_inactive_file 50\n")
    assert memory.available_bytes() == 0
    assert not memory.fits_in_memory(1)


def test_progress_of_reading(shared_folder):
    ticks = []
    load_data(
        shared_folder,
        options=LoadOptions(tick=lambda at, count: ticks.append((at, count))),
    )
    assert ticks[0] == (0, 40)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1] * 20,
        [False, True] * 20,
        np.array([0, 1] * 20),
        np.array([False, True] * 20),
        np.array([0.0, 1.0] * 20),
        np.array(["0", "1"] * 20),
    ],
    ids=["int", "bool", "int64", "bool_", "float64", "str_"],
)
def test_arrays_with_labels_of_every_type(labels):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 4), np.uint8)
    source = from_arrays("toy", pixels, labels)
    assert source.labels.names == ("0", "1")
    assert [record.label for record in source.records] == ["0", "1"] * 20
    assert all(type(record.label) is str for record in source.records)
    assert load_data(source).num_classes == 2


def test_arrays_with_fractions_as_labels():
    with pytest.raises(ValueError, match=r"class names or integers, got 0\.5"):
        from_arrays("toy", np.zeros((2, 4, 4), np.uint8), [0.5, 1.0])
