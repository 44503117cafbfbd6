"""Torch Datasets and DataLoaders as data: images, labels, splits, and bad items."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

import striate as st
from striate.core.errors import DataError, SettingError, StriateError, WorkerError
from striate.core.preprocess_config import Preprocess
from striate.data.augment.augment import Augment
from striate.data.batches import Batches
from striate.data.cache import free_memory
from striate.data.cache.image_rows import display_rows
from striate.data.load import load_labeled
from striate.data.load_options import LoadOptions
from striate.data.torch_dataset.pixels import DatasetPixels
from striate.data.torch_dataset.source import dataset_source
from striate.workflows.train.train import train

BUNCH = load_digits()
PIXELS = np.rint(BUNCH.images * (255 / 16)).astype(np.uint8)
LABELS = BUNCH.target


class Images(Dataset):
    """Images of any kind, with labels."""

    def __init__(self, images, labels, change=None):
        self.images, self.labels, self.change = images, labels, change

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = self.images[i]
        return (self.change(image) if self.change else image), self.labels[i]


def floats(count=60, shape=(1, 4, 4), classes=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *shape, generator=draw)
    return TensorDataset(images, torch.arange(count) % classes)


def arrays(count=60, size=(4, 4), classes=2, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, *size), np.uint8)
    return Images(images, [i % classes for i in range(count)])


def error_of(*data, **settings) -> StriateError:
    with pytest.raises(StriateError) as caught:
        st.load_data(*data, **settings)
    error = caught.value
    assert error.what
    assert error.where
    assert error.fix
    return error


KINDS = {
    "array": lambda image: image,
    "channel": lambda image: image[..., None],
    "pil": Image.fromarray,
    "tensor": lambda image: torch.from_numpy(image)[None],
}


@pytest.mark.parametrize("kind", KINDS)
def test_8_bit_images_are_loaded_as_from_arrays(kind):
    """The same split, statistics and pixels as the named data set of these images."""
    data = st.load_data(Images(PIXELS, LABELS, KINDS[kind]))
    digits = st.load_data("digits")
    assert data.preprocess == digits.preprocess
    assert data.labels == digits.labels
    for split, subset in digits.subsets.items():
        assert torch.equal(subset.pixels[:], data.subset(split).pixels[:])
        assert torch.equal(subset.labels, data.subset(split).labels)
    assert [r.content for r in data.rows] == [r.content for r in digits.rows]
    assert (data.origin, data.inexact, data.notes) == ("", (), ())


def test_pil_images_of_several_sizes_and_modes_are_resized_like_files(tmp_path):
    images, draw = [], np.random.default_rng(1)
    for i in range(24):
        levels = draw.integers(0, 256, (8 + i % 3, 10, 4), np.uint8)
        images.append(Image.fromarray(levels).convert("RGBA" if i % 2 else "RGB"))
        folder = tmp_path / "files" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        images[-1].save(folder / f"{i:02d}.png")
    data = st.load_data(Images(images, [i % 2 for i in range(24)]), image_size=6)
    files = st.load_data(tmp_path / "files", image_size=6)
    assert data.preprocess == files.preprocess
    ours, theirs = (
        sorted((r.content, r.split, r.label) for r in d.rows) for d in (data, files)
    )
    assert ours == theirs
    for split in files.subsets:
        pixels = [
            s.pixels[:].flatten(1).long()
            for s in (data.subset(split), files.subset(split))
        ]
        assert sorted(pixels[0].tolist()) == sorted(pixels[1].tolist())


def test_float_tensors_reach_the_network_unchanged():
    dataset = floats(shape=(3, 4, 5))
    data = st.load_data(dataset, val=floats(20, (3, 4, 5), seed=1))
    batches = Batches(
        subset=data.subset("train"),
        preprocess=data.preprocess,
        batch_size=60,
        shuffle=False,
    )
    x, y = next(batches(0))
    assert torch.equal(x, dataset.tensors[0])
    assert torch.equal(y, dataset.tensors[1])
    x.zero_()  # a network may change its input: the images stay
    assert torch.equal(next(batches(0))[0], dataset.tensors[0])
    assert data.image_size == (4, 5)
    assert data.preprocess.dtype == "float32"
    assert Preprocess.from_dict(data.preprocess.as_dict()) == data.preprocess


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_other_floats_become_float32(dtype):
    images, labels = floats().tensors
    data = st.load_data(TensorDataset(images.to(dtype), labels))
    assert data.subset("train").pixels[:].dtype == torch.float32


def test_normalized_images_are_displayed_as_they_were():
    pixels = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    pixels[:, :, 0, 0], pixels[:, :, 0, 1] = 0, 255
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    data = st.load_data(
        TensorDataset((pixels / 255 - mean) / std, torch.arange(40) % 2)
    )
    rows = display_rows(data.subset("test").pixels, data.preprocess)
    originals = {tuple(image.permute(1, 2, 0).flatten().tolist()) for image in pixels}
    assert {tuple(image.flatten().tolist()) for image in rows[:]} <= originals
    assert data.preprocess.mean == pytest.approx(mean.flatten().tolist(), abs=1e-5)


AUGMENTS = [
    Augment(flip="horizontal", shift=0.25),
    Augment(shift=0.25, border="background"),
    Augment(rotate=20, scale=0.2, color=0.2),
    Augment(flip="both", color=0.2),
    Augment(crop=0.3),
    Augment(mixup=1, cutmix=1, erase=0.5),
]


@pytest.mark.parametrize("augment", AUGMENTS, ids=str)
def test_float_images_are_augmented_like_8_bit_images(augment):
    """Floats made of pixels give what the pixels give, to rounding."""
    pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    pixels[:, :, 0, 0], pixels[:, :, 0, 1] = 0, 255
    labels = torch.arange(40) % 2
    both = [TensorDataset(images, labels) for images in (pixels, pixels / 255)]
    batches = []
    for dataset in both:
        data = st.load_data(dataset, val=dataset, normalize="none")
        batches.append(
            Batches(
                subset=data.subset("train"),
                preprocess=data.preprocess,
                batch_size=16,
                augment=augment,
                classes=2,
            )
        )
    for (x, y), (u, v) in zip(batches[0](1), batches[1](1), strict=True):
        assert torch.allclose(x, u, atol=1e-5)
        assert torch.equal(y, v)


def test_splits_are_given_or_taken_from_the_training_images():
    data = st.load_data(floats(40), val=floats(20, seed=1), test=floats(10, seed=2))
    assert {name: len(s) for name, s in data.subsets.items()} == {
        "train": 40,
        "val": 20,
        "test": 10,
    }
    assert data.subset("val").paths[3] == "TensorDataset/val/03"
    assert list(st.load_data(floats(), val=floats(seed=1)).subsets) == ["train", "val"]
    data = st.load_data(floats(80), test=floats(20, seed=1))
    assert len(data.subset("test")) == 20
    assert len(data.subset("train")) + len(data.subset("val")) == 80
    again = st.load_data(floats(80), test=floats(20, seed=1))
    assert [r.split for r in data.rows] == [r.split for r in again.rows]


def test_leaks_and_conflicting_labels_are_seen():
    images, labels = floats(40).tensors
    leaked = TensorDataset(images[:3], labels[:3])
    assert "also in train" in st.load_data(floats(40), val=leaked).warnings[0]
    both = TensorDataset(
        torch.cat([images, images[:1]]), torch.cat([labels, 1 - labels[:1]])
    )
    data = st.load_data(both)
    assert [skip.reason for skip in data.quarantined] == ["two-labels"] * 2
    assert data.num_files == 41


class Pets(Images):
    classes = ("cat", "dog")


def pets(count=40):
    return Pets(*vars(arrays(count)).values())


def test_class_names_come_from_the_data_set():
    for dataset in (
        pets(),
        Subset(pets(), range(40)),
        ConcatDataset([pets(), pets()]),
        DataLoader(pets()),
    ):
        assert st.load_data(dataset).labels.names == ("cat", "dog")
    assert st.load_data(arrays()).labels.names == ("0", "1")
    assert st.load_data(pets(), val=arrays(20)).labels.names == ("cat", "dog")


def test_a_list_of_pairs_is_a_data_set():
    pairs = [(PIXELS[i], int(LABELS[i])) for i in range(400)]
    assert len(st.load_data(pairs).rows) == 400


@pytest.mark.parametrize("label", [np.int64(1), np.array(1), torch.tensor(1), True, 1])
def test_labels_of_all_integer_types(label):
    dataset = Images(arrays().images, [0, label] * 30)
    assert st.load_data(dataset).labels.names == ("0", "1")


# Data loaders


def test_a_plain_loader_lends_its_data_set():
    dataset = floats(50)
    loader = DataLoader(dataset, batch_size=8, shuffle=True, drop_last=True)
    data = st.load_data(loader, val=DataLoader(floats(20, seed=1), batch_size=7))
    plain = st.load_data(dataset, val=floats(20, seed=1))
    assert torch.equal(data.subset("train").pixels, plain.subset("train").pixels)
    assert (data.batch_size, data.inexact) == (8, ())
    assert "batch size 8" in data.notes[0]
    assert "drop_last (the rest of an epoch, 2 images, is used too)" in data.notes[0]
    assert len(data.notes) == 2


def pairs_as_lists(pairs):
    return [image for image, _ in pairs], [label for _, label in pairs]


LOADERS = {
    "sampler": {"sampler": list(range(49, -1, -1)), "batch_size": 8},
    "batch sampler": {"batch_sampler": BatchSampler(range(50), 7, False)},
    "collate": {"collate_fn": pairs_as_lists, "batch_size": 2},
    "pairs": {"collate_fn": list, "batch_size": 2},
    "no batches": {"batch_size": None, "sampler": range(50)},
    "workers": {"sampler": range(50), "num_workers": 1, "batch_size": 10},
}


@pytest.mark.parametrize("name", LOADERS)
def test_another_loader_is_read_once_in_its_order(name):
    dataset = floats(50)
    options = dict(LOADERS[name])
    data = st.load_data(DataLoader(dataset, **options), val=floats(20, seed=1))
    order = options.get("sampler", range(50))
    assert torch.equal(
        data.subset("train").pixels[:].permute(0, 3, 1, 2),
        dataset.tensors[0][list(order)],
    )
    assert "read once, 50 images" in data.notes[0]
    assert "its own order" in data.inexact[0]
    assert data.warnings == ()


@pytest.mark.parametrize("kind", ["pil", "array", "channel"])
@pytest.mark.parametrize("options", [{}, {"collate_fn": pairs_as_lists}])
def test_a_loader_of_images(kind, options):
    """Arrays are not stacked to tensors, whose last axis would be the columns."""
    dataset = Images(PIXELS[:200], LABELS[:200], KINDS[kind])
    loader = DataLoader(dataset, batch_size=50, sampler=range(200), **options)
    assert torch.equal(
        st.load_data(loader).subset("train").pixels,
        st.load_data(dataset).subset("train").pixels,
    )


class Stream(IterableDataset):
    """Images without a length, which may repeat without end."""

    def __init__(self, count, endless=False):
        self.items, self.endless = list(floats(count)), endless

    def __iter__(self):
        yield from self.items
        while self.endless:
            yield from self.items


def test_an_iterable_data_set_is_read_once():
    for stream in (Stream(50), DataLoader(Stream(50), batch_size=8)):
        data = st.load_data(stream, val=floats(20, seed=1))
        assert torch.equal(
            data.subset("train").pixels.permute(0, 3, 1, 2), floats(50).tensors[0]
        )
        assert data.inexact


def test_images_that_a_loader_drops_or_repeats_are_counted():
    loader = DataLoader(floats(50), batch_size=8, sampler=range(50), drop_last=True)
    data = st.load_data(loader, val=floats(20, seed=1))
    assert "left out 2 of 50 images (its drop_last)" in data.warnings[0]
    loader = DataLoader(floats(50), batch_size=8, sampler=[*range(40), *range(10)])
    data = st.load_data(loader, val=floats(20, seed=1))
    assert "returned 10 of 50 images more than once" in data.warnings[0]
    draw = WeightedRandomSampler([1.0] * 50, 80)
    data = st.load_data(DataLoader(floats(50), sampler=draw), val=floats(9, seed=1))
    assert "more than once" in data.warnings[0]
    draw = RandomSampler(range(50), num_samples=40)
    data = st.load_data(DataLoader(floats(50), sampler=draw), val=floats(9, seed=1))
    assert "left out 10 of 50 images (its sampler)" in data.warnings[0]
    data = st.load_data(
        DataLoader(Stream(50), 8, drop_last=True), val=floats(9, seed=1)
    )
    assert "after the last full batch" in data.warnings[0]


def test_a_loader_without_end_is_refused():
    for stream in (Stream(40, endless=True), DataLoader(Stream(40, True), 16)):
        error = error_of(stream)
        assert "repeats its 40 images without end" in error.what


def test_a_loader_larger_than_memory_is_refused(monkeypatch):
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 2000)
    assert "memory is full" in error_of(DataLoader(floats(), sampler=range(60))).what


# Random transforms, and sets larger than memory


def noisy(dataset):
    draw = torch.Generator().manual_seed(5)
    images, labels = dataset.tensors
    return Images(images, labels, lambda x: x + torch.rand(1, generator=draw))


def test_random_images_are_read_anew_in_every_epoch():
    data = st.load_data(noisy(floats(40)), val=floats(20, seed=1))
    train_set = data.subset("train")
    assert isinstance(train_set.pixels, DatasetPixels)
    batches = Batches(
        subset=train_set, preprocess=data.preprocess, batch_size=40, shuffle=False
    )
    (x, _), (z, _) = next(batches(0)), next(batches(1))
    assert not torch.equal(x, z)
    assert torch.equal(data.subset("val").pixels[:], data.subset("val").pixels[:])
    assert data.inexact == ("the data set returns another image at each read",)
    assert "read anew in every epoch" in data.notes[0]
    assert len(data.notes) == 1


def test_random_images_keep_their_split():
    splits = [[r.split for r in st.load_data(noisy(floats(80))).rows] for _ in range(2)]
    assert splits[0] == splits[1]
    data = st.load_data(noisy(floats(80)))
    assert "val and test images are random too" in data.notes[1]


def test_random_8_bit_images_are_resized_and_normalized():
    draw = np.random.default_rng(0)

    def crop(image):
        return Image.fromarray(image[: draw.integers(5, 9)])

    data = st.load_data(Images(PIXELS[:200], LABELS[:200], crop), image_size=8)
    x, _ = next(
        Batches(subset=data.subset("train"), preprocess=data.preprocess, batch_size=30)(
            0
        )
    )
    assert x.shape == (30, 1, 8, 8)
    assert x.mean().abs() < 0.3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [floats, arrays])
def test_a_set_larger_than_memory_is_read_when_needed(monkeypatch, make, workers):
    whole = st.load_data(make(), val=make(seed=1))
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 500)
    lazy = st.load_data(make(), val=make(seed=1), workers=workers)
    assert isinstance(lazy.subset("train").pixels, DatasetPixels)
    assert lazy.preprocess == whole.preprocess
    assert [r.content for r in lazy.rows] == [r.content for r in whole.rows]
    options = {"batch_size": 7, "augment": Augment(flip="horizontal", shift=0.25)}
    for augment in ("none", Augment(flip="horizontal", rotate=9)):
        options = {"batch_size": 7, "augment": augment, "preprocess": whole.preprocess}
        ours, theirs = (
            Batches(subset=d.subset("train"), **options)(1) for d in (lazy, whole)
        )
        for (x, y), (u, v) in zip(ours, theirs, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_small_images_of_a_large_set_are_read_twice(monkeypatch):
    """The images do not fit into memory as they are, but at the input size."""
    dataset = arrays(60, (40, 40))
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 40_000)
    data = st.load_data(dataset, image_size=4)
    assert isinstance(data.subset("train").pixels, torch.Tensor)
    monkeypatch.undo()
    again = st.load_data(dataset, image_size=4)
    assert torch.equal(data.subset("train").pixels, again.subset("train").pixels)


def test_an_image_that_changes_after_loading_is_named(monkeypatch):
    dataset = arrays()
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 500)
    data = st.load_data(dataset, val=arrays(seed=1))
    dataset.images[3] += 1
    with pytest.raises(DataError, match="another image") as caught:
        _ = data.subset("train").pixels[:]
    assert caught.value.where == "Images[3] (train)"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_fails_in_training_is_named(monkeypatch, workers):
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 500)
    dataset = arrays()
    data = st.load_data(dataset, val=arrays(seed=1), workers=workers)
    dataset.labels[7] = 1.5
    batches = Batches(
        subset=data.subset("train"), preprocess=data.preprocess, batch_size=9
    )
    with pytest.raises(DataError, match="label is the float") as caught:
        list(batches(0))
    assert caught.value.where == "Images[7] (train)"


def fatal(image):
    if torch.utils.data.get_worker_info() is not None:
        import os

        os._exit(3)
    return image


def test_a_worker_process_that_dies_is_named(monkeypatch):
    loader = DataLoader(Images(PIXELS, LABELS, fatal), num_workers=1, sampler=range(99))
    assert isinstance(error_of(loader), WorkerError)
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 500)
    data = st.load_data(Images(PIXELS[:200], LABELS[:200], fatal), workers=1)
    batches = Batches(
        subset=data.subset("train"), preprocess=data.preprocess, batch_size=9
    )
    with pytest.raises(WorkerError, match="worker process"):
        list(batches(0))


# Evaluation of other data


def test_labeled_images_are_matched_by_class_name():
    data = st.load_data(pets())
    subset, skipped = load_labeled(pets(30), data.preprocess, data.labels)
    assert (len(subset), skipped) == (30, ())
    float_data = st.load_data(floats())
    subset, _ = load_labeled(
        floats(20, seed=1), float_data.preprocess, float_data.labels
    )
    assert len(subset) == 20
    split = dataset_source(floats(40), val=floats(20, seed=1))
    subset, _ = load_labeled(split, float_data.preprocess, float_data.labels, "val")
    assert torch.equal(subset.pixels.permute(0, 3, 1, 2), floats(20, seed=1).tensors[0])
    with pytest.raises(DataError, match="takes 8-bit images"):
        load_labeled(floats(), st.load_data(arrays()).preprocess, float_data.labels)
    with pytest.raises(DataError, match="trained on float tensors"):
        load_labeled(arrays(), float_data.preprocess, float_data.labels)
    with pytest.raises(DataError, match="the tensor is 1×5×5, but"):
        load_labeled(floats(9, (1, 5, 5)), float_data.preprocess, float_data.labels)


# Bad data


def broken(change, at=17, **options):
    """Return images of which item `at` is changed."""
    dataset = arrays(**options)
    original = Images.__getitem__

    class Broken(Images):
        def __getitem__(self, i):
            image, label = original(self, i)
            return change(image, label) if i == at else (image, label)

    return Broken(dataset.images, dataset.labels)


def failing(image, label):
    raise KeyError("no such file")


X = torch.zeros(1, 4, 4)
BAD_ITEMS = {
    "label is the float 1.0": lambda i, y: (i, 1.0),
    "label is the float 0.0": lambda i, y: (i, torch.tensor(0.0)),
    "label is the str 'cat'": lambda i, y: (i, "cat"),
    "label is None": lambda i, y: (i, None),
    "label has the shape (2,)": lambda i, y: (i, torch.tensor([0, 1])),
    "label is negative: -1": lambda i, y: (i, -1),
    "no training image has the label 2, 3 (2 of 5 labels)": lambda i, y: (i, 4),
    "no training image has the label 2, 3, 4, 5, 6 …": lambda i, y: (i, 10**15),
    "returned an object of the type ndarray, not a pair": lambda i, y: i,
    "returned a tuple of length 3": lambda i, y: (i, y, "name"),
    "returned a dict with the keys 'image', 'label'": lambda i, y: {
        "image": i,
        "label": y,
    },
    "the image is the str 'a.png'": lambda i, y: ("a.png", y),
    "the image is None": lambda i, y: (None, y),
    "has the type float64, not uint8": lambda i, y: (i / 255.0, y),
    "has the type int64, not uint8": lambda i, y: (i.astype(int), y),
    "has 1 dimension, not 2 or 3": lambda i, y: (i[0], y),
    "looks like channels×height×width": lambda i, y: (np.zeros((3, 9, 9), np.uint8), y),
    "looks like height×width×channels": lambda i, y: (torch.zeros(9, 9, 3), y),
    "tensor has 2 dimensions (4×4), not 3": lambda i, y: (X[0], y),
    "tensor has the type torch.int64": lambda i, y: (X.long(), y),
    "has 16 NaN or infinite values": lambda i, y: (X / 0, y),
    "is an image of 4×4×1, Broken[17] is a float tensor": lambda i, y: (X, y),
    "Broken[17] is a uint8 tensor of 1×5×5": lambda i, y: (
        torch.zeros(1, 5, 5, dtype=torch.uint8),
        y,
    ),
    "the image is empty": lambda i, y: (i[:0], y),
    "the PIL image cannot be used: unsupported": lambda i, y: (
        Image.new("F", (4, 4)),
        y,
    ),
    "the data set raised KeyError: 'no such file'": failing,
}


@pytest.mark.parametrize("message", BAD_ITEMS)
def test_a_bad_item_is_named(message):
    error = error_of(broken(BAD_ITEMS[message]))
    assert message in error.what
    assert "Broken" in error.where
    if "no training image" not in message:
        assert "[17]" in error.where


def test_labels_out_of_range():
    error = error_of(broken(lambda i, y: (i, 3)), val=arrays(20))
    assert "no training image has the label 2" in error.what
    error = error_of(arrays(), val=broken(lambda i, y: (i, 3), at=5))
    assert (
        "label 3 is out of range: the training images have labels 0 to 1" in error.what
    )
    assert error.where == "Images, val item 5"
    error = error_of(Pets(arrays().images, [0, 1, 2] * 20))
    assert "attribute `classes` has 2 classes" in error.what
    one_class = Pets(arrays().images, [0] * 60)
    assert "no training image has the label 1 (dog)" in error_of(one_class).what

    class Cars(Images):
        classes = ("van", "bus")

    error = error_of(pets(), val=Cars(*vars(arrays(20)).values()))
    assert "the classes of train are cat, dog; those of val: van, bus" in error.what


def test_tensors_of_several_sizes():
    images = [torch.zeros(1, 4, 4 + i // 40) for i in range(60)]
    error = error_of(Images(images, [i % 2 for i in range(60)]))
    assert "Images[0] is a float tensor of 1×4×4, Images[40] is a" in error.what
    error = error_of(floats(), val=floats(20, (1, 5, 4)))
    assert "TensorDataset[0] (val) is a float tensor of 1×5×4" in error.what


class Endless(Dataset):
    def __getitem__(self, i):
        return PIXELS[i % 9], i % 2


def test_no_length_no_images_no_data_set():
    assert "has no length" in error_of(Endless()).what
    assert "train data set is empty" in error_of(arrays(0)).what
    assert "val data set is empty" in error_of(arrays(), val=arrays(0)).what
    assert "returned no image" in error_of(Stream(0)).what
    assert "the class Images, not an instance" in error_of(Images).what
    assert "val data is the text 'val'" in error_of(arrays(), val="val").what
    assert "data is an object of the type generator" in error_of(i for i in []).what
    assert "only for torch data sets" in error_of("digits", val=arrays()).what


def test_a_loader_that_fails_is_named():
    loader = DataLoader(broken(failing), sampler=range(60), batch_size=10)
    error = error_of(loader)
    assert "raised after 10 images: KeyError: 'no such file'" in error.what
    loader = DataLoader(broken(failing), sampler=range(60), num_workers=1)
    assert "raised after 17 images: KeyError: 'no such file'" in error_of(loader).what
    loader = DataLoader(floats(), collate_fn=lambda pairs: {"x": pairs})
    assert "no pair of images and labels, but a dict" in error_of(loader).what
    loader = DataLoader(
        floats(), batch_size=3, collate_fn=lambda p: (torch.zeros(2, 1, 4, 4), [0])
    )
    assert "has 2 images and 1 label" in error_of(loader).what
    bad = TensorDataset(X.expand(9, 1, 4, 4), torch.zeros(9))
    error = error_of(DataLoader(bad, sampler=range(9)))
    assert "label is the float 0.0" in error.what
    assert "image 0" in error.where


def test_settings_that_cannot_change_float_tensors():
    for settings in (
        {"image_size": 9},
        {"in_chans": 3},
        {"normalize": "imagenet"},
        {"mean": [0.5], "std": [0.5]},
    ):
        with pytest.raises(SettingError, match="cannot change float tensors"):
            st.load_data(floats(), **settings)
    assert st.load_data(
        floats(), image_size=4, in_chans=1, options=LoadOptions(margin=1.5)
    )


def test_pixels_that_were_not_normalized_give_a_warning():
    images, labels = floats().tensors
    data = st.load_data(TensorDataset((images * 99).clamp(0, 255), labels))
    assert "values from 0 to 2" in data.warnings[0]


def test_loaded_images_take_no_further_split():
    with pytest.raises(SettingError, match="cannot be added to loaded images"):
        train(torch.nn.Flatten(), st.load_data(floats()), floats())
