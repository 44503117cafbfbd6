"""Exact resume however images are fed: augmented, mixed, balanced, decoded, streamed.

Each run is stopped in the middle of its second epoch, and ends in the same bytes as one
that was not; or says why not.
"""

import shutil
import tarfile
from pathlib import Path

import pytest

import striate as st
from striate.core.errors import InterruptedRunError
from striate.core.files import read_csv, read_json
from striate.data.augment.pipeline import AugmentPipeline
from striate.data.batches import Batches
from striate.data.cache import decode_dataset
from striate.data.cache import free_memory as memory
from striate.data.cache.lazy_images import LazyPixels
from striate.data.shards import load as shards
from striate.engine.checkpoint_store import CheckpointStore
from striate.run.run import Run
from support.images import encoded, pil_image, stripes, write_folder
from support.stopped_runs import ask_before, stopped, whole
from support.tar_shards import add, write_shards

pytestmark = pytest.mark.usefixtures("no_report")

SAME = (
    "results.csv",
    "events.jsonl",
    "split.csv",
    "args.yaml",
    "scores.json",
    "predictions_val.csv",
    "predictions_test.csv",
    "weights/best.safetensors",
)


@pytest.fixture
def lazily(monkeypatch):
    """Let all images be decoded lazily: neither memory nor cache has room."""
    hold_nothing(monkeypatch)


def hold_nothing(patch):
    patch.setattr(memory, "fits_in_memory", lambda size: size < 2_000)
    patch.setattr(decode_dataset, "_check_batch", lambda size: None)


@pytest.fixture
def streamed(monkeypatch):
    """Let every set in shards be too large to hold."""
    monkeypatch.setattr(shards, "MOST_HELD", 0)


def contents(run):
    files = {name: (run / name).read_bytes() for name in SAME}
    return files | CheckpointStore(run / "weights/last").newest()[0].files


def resumed(data, step=5, **settings):
    """Stop and resume a run; compare it with an uninterrupted one."""
    run, expected = stopped(data, step=step, **settings), whole(data, **settings)
    middle = CheckpointStore(run / "weights/last").newest()[0].path.name
    assert middle.startswith(f"step-{step:08d}-epoch-0001")
    infos = []
    done = st.resume(run, on_resume=infos.append, quiet=True)
    assert infos[0].exact == "yes"
    assert infos[0].state.batch > 0
    assert read_json(run / "manifest.json")["exact"] == "yes"
    assert contents(run) == contents(expected)
    return done


MIXED = {"mixup": 0.4, "cutmix": 1.0}
SETTINGS = {
    "six": {"augment": "six"},
    "mixed": {"augment": "six", **MIXED},
    "mixed, sharp targets": {**MIXED, "label_smoothing": 0.0},
    "smoothed more": {"label_smoothing": 0.3},
    "moved by whole pixels": {"shift": 0.2, "flip": "horizontal"},
    "crops of larger images": {"crop": 0.3},
    "erased": {"erase": 0.5, "flip": "both"},
    "sampled": {"class_weights": "sampling"},
    "sampled, mixed, augmented": {
        "class_weights": "sampling",
        "augment": "six",
        **MIXED,
    },
    "adjusted": {"class_weights": "auto"},
    "weighed": {"class_weights": "loss", "label_smoothing": 0.2},
    "a fraction": {"fraction": 0.8},
    "a fold": {"folds": 3, "fold": 1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resume_is_exact(shared_folder, name):
    resumed(shared_folder, **SETTINGS[name])


LAZILY = {
    "plain": {},
    "six": {"augment": "six"},
    "mixed": {"augment": "six", **MIXED},
    "crops": {"crop": 0.3, "class_weights": "sampling"},
}


# Each epoch starts its processes anew, so only what draws most runs at every commit.
WITH_WORKERS = [
    pytest.param(name, 2, marks=() if name == "mixed" else pytest.mark.slow)
    for name in LAZILY
]


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, 0) for name in LAZILY), *WITH_WORKERS]
)
def test_resume_with_lazily_decoded_images(lazily, shared_folder, name, workers):
    done = resumed(shared_folder, cache="off", workers=workers, **LAZILY[name])
    assert isinstance(done.data.subset("train").pixels, LazyPixels)


def test_resume_without_the_cache(shared_folder, monkeypatch):
    """Cached and decoded images are identical, so the run stays exact."""
    run = stopped(shared_folder, augment="six", **MIXED)
    expected = contents(whole(shared_folder, augment="six", **MIXED))
    hold_nothing(monkeypatch)
    infos = []
    st.resume(run, on_resume=infos.append, quiet=True, cache="off", workers=2)
    assert infos[0].exact == "yes"
    found = contents(run)
    assert found.pop("args.yaml") != expected.pop("args.yaml")
    assert found == expected


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("plain", 0),
        ("mixed", 0),
        pytest.param("plain", 2, marks=pytest.mark.slow),
        ("mixed", 2),
    ],
)
def test_resume_with_streamed_shards(streamed, tmp_path, name, workers):
    folder = write_shards(tmp_path / "shards")
    done = resumed(folder, step=14, workers=workers, **LAZILY[name])
    assert done.data.subset("train").blocks


def test_resume_with_a_relative_shard_pattern(streamed, tmp_path):
    """`split.csv` has paths that mean the same when they are read again."""
    write_shards(tmp_path / "shards")
    resumed("shards/p-{000..003}.tar", step=14)


def test_shards_held_in_memory_make_the_run_inexact(streamed, tmp_path, monkeypatch):
    """In memory the order is another one, so the run is inexact."""
    folder = write_shards(tmp_path / "shards")
    run = stopped(folder, step=14)
    monkeypatch.setattr(shards, "MOST_HELD", 10**6)
    infos = []
    st.resume(run, on_resume=infos.append, quiet=True)
    reason = "order: shard by shard, now image by image"
    assert infos[0].exact == f"no ({reason})"
    assert read_json(run / "manifest.json")["exact"] == infos[0].exact


def test_an_added_shard_makes_the_run_inexact(streamed, tmp_path):
    """Shards are split by content, so images of a new shard are used."""
    folder = write_shards(tmp_path / "shards")
    run = stopped(folder, step=14)
    with tarfile.open(folder / "p-004.tar", "w") as tar:
        for i in range(4):
            kind = ("across", "down")[i % 2]
            payload = encoded(pil_image(stripes(i % 2, 9000 + i)))
            add(tar, f"{kind}-{i}.png", payload)
            add(tar, f"{kind}-{i}.cls", kind.encode())
    infos = []
    st.resume(run, on_resume=infos.append, quiet=True)
    assert infos[0].exact.startswith("no (images: ")
    assert "now 0 removed and 4 changed" in infos[0].exact


def test_unreadable_images_make_the_run_inexact(lazily, tmp_path, capsys):
    """An image that was missing for a while cannot be found later."""
    photos = write_folder(tmp_path / "photos", count=20)
    split = whole(photos, out="whole")
    gone = next(
        r["image_path"] for r in read_csv(split / "split.csv") if r["split"] == "train"
    )
    hidden = photos / gone
    real = LazyPixels.batches

    def batches(self, indices):
        if not self.replace_lost:
            yield from real(self, indices)
            return
        shutil.move(hidden, tmp_path / "away")
        try:
            yield from real(self, indices)
        finally:
            shutil.move(tmp_path / "away", hidden)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LazyPixels, "batches", batches)
        ask_before(6, patch)
        with pytest.raises(InterruptedRunError):
            whole(photos, out="run", cache="off")
    reason = f"unreadable training images: 1 (first: {gone})"
    assert f"{reason}; replaced by other images" in (capsys.readouterr().err)
    infos = []
    st.resume("run", on_resume=infos.append, quiet=True)
    assert infos[0].exact == f"no ({reason})"
    assert read_json(Path("run/manifest.json"))["exact"] == f"no ({reason})"


# --- skipping the first batches of an epoch


class Counting(LazyPixels):
    """Records which images are decoded."""

    def decode_batch(self, index):
        self.seen = [*getattr(self, "seen", []), *index.tolist()]
        return super().decode_batch(index)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["plain", "six", "crops"])
def test_skipped_batches_are_not_decoded(
    lazily, shared_folder, name, workers, monkeypatch
):
    run = Run(whole(shared_folder, cache="off", epochs=1, **LAZILY[name]))
    margin = 1.25 if "crop" in LAZILY[name] else 1.0
    data = run.read_again(margin=margin)
    subset = data.subset("train")
    for pixels in filter(None, (subset.pixels, subset.larger)):
        pixels.workers, pixels.__class__ = workers, Counting
    made = Batches(
        subset=subset,
        preprocess=data.preprocess,
        batch_size=8,
        augment=run.recipe.augmentation,
        balanced=run.recipe.class_weights == "sampling",
        seed=run.recipe.seed,
    )
    every = list(made(1))
    held = subset.larger if subset.larger is not None else subset.pixels
    held.seen = []
    rest = list(made(1, 2))
    assert len(rest) == len(every) - 2 > 0
    for (x, y), (u, v) in zip(every[2:], rest, strict=True):
        assert x.equal(u)
        assert y.equal(v)
    if not workers:  # else it is seen in another process
        wanted = [n for index in list(made.indices(1))[2:] for n in index.tolist()]
        assert sorted(held.seen) == sorted(wanted)


def test_pixel_shifts_are_cut_from_padded_images(shared_folder):
    """The name of `moved by whole pixels` above is the one it is meant to be."""
    data = st.load_data(shared_folder)
    views = AugmentPipeline(
        subset=data.subset("train"),
        preprocess=data.preprocess,
        augment=st.Recipe(data="x", **SETTINGS["moved by whole pixels"]).augmentation,
    )
    assert views.shift_buffer is not None
