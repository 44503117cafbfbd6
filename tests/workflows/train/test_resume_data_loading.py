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
from striate.data.cache import free_memory as memory
from striate.data.cache import materialize as develop
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
    """Let no set be held: neither in memory nor in the cache."""
    hold_nothing(monkeypatch)


def hold_nothing(patch):
    patch.setattr(memory, "fits_in_memory", lambda size: size < 2_000)
    patch.setattr(develop, "_check_batch", lambda size: None)


@pytest.fixture
def streamed(monkeypatch):
    """Let every set in shards be too large to hold."""
    monkeypatch.setattr(shards, "MOST_HELD", 0)


def contents(run):
    files = {name: (run / name).read_bytes() for name in SAME}
    return files | CheckpointStore(run / "weights/last").newest()[0].files


def resumed(data, step=5, **settings):
    """Stop a run, let it go on, and hold it against one that was never stopped."""
    run, expected = stopped(data, step=step, **settings), whole(data, **settings)
    middle = CheckpointStore(run / "weights/last").newest()[0].path.name
    assert middle.startswith(f"step-{step:08d}-epoch-0001")
    told = []
    done = st.resume(run, begun=told.append, quiet=True)
    assert told[0].exact == "yes"
    assert told[0].at.batch > 0
    assert read_json(run / "manifest.json")["exact"] == "yes"
    assert contents(run) == contents(expected)
    return done


MIXED = {"mixup": 0.4, "cutmix": 1.0}
WAYS = {
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


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_feeding(shared_folder, way):
    resumed(shared_folder, **WAYS[way])


LAZILY = {
    "plain": {},
    "six": {"augment": "six"},
    "mixed": {"augment": "six", **MIXED},
    "crops": {"crop": 0.3, "class_weights": "sampling"},
}


# Each epoch starts its processes anew, so only what draws most runs at every commit.
WITH_WORKERS = [
    pytest.param(way, 2, marks=() if way == "mixed" else pytest.mark.slow)
    for way in LAZILY
]


@pytest.mark.parametrize(
    ("way", "workers"), [*((way, 0) for way in LAZILY), *WITH_WORKERS]
)
def test_decoded_when_wanted(lazily, shared_folder, way, workers):
    done = resumed(shared_folder, cache="off", workers=workers, **LAZILY[way])
    assert isinstance(done.data.subset("train").pixels, LazyPixels)


def test_what_the_cache_held_may_be_decoded(shared_folder, monkeypatch):
    """Where images wait changes no bit of them, and is no other circumstance."""
    run = stopped(shared_folder, augment="six", **MIXED)
    expected = contents(whole(shared_folder, augment="six", **MIXED))
    hold_nothing(monkeypatch)
    told = []
    st.resume(run, begun=told.append, quiet=True, cache="off", workers=2)
    assert told[0].exact == "yes"
    found = contents(run)
    assert found.pop("args.yaml") != expected.pop("args.yaml")
    assert found == expected


@pytest.mark.parametrize(
    ("way", "workers"),
    [
        ("plain", 0),
        ("mixed", 0),
        pytest.param("plain", 2, marks=pytest.mark.slow),
        ("mixed", 2),
    ],
)
def test_streamed_shards(streamed, tmp_path, way, workers):
    folder = write_shards(tmp_path / "shards")
    done = resumed(folder, step=14, workers=workers, **LAZILY[way])
    assert done.data.subset("train").blocks


def test_shards_named_as_seen_from_here(streamed, tmp_path):
    """`split.csv` has paths that mean the same when they are read again."""
    write_shards(tmp_path / "shards")
    resumed("shards/p-{000..003}.tar", step=14)


def test_streamed_and_then_held(streamed, tmp_path, monkeypatch):
    """Held images are shown in another order, which is told."""
    folder = write_shards(tmp_path / "shards")
    run = stopped(folder, step=14)
    monkeypatch.setattr(shards, "MOST_HELD", 10**6)
    told = []
    st.resume(run, begun=told.append, quiet=True)
    reason = "order: shard by shard, now image by image"
    assert told[0].exact == f"no ({reason})"
    assert read_json(run / "manifest.json")["exact"] == told[0].exact


def test_another_shard(streamed, tmp_path):
    """Shards are dealt by content: what was added is learned from, and that is told."""
    folder = write_shards(tmp_path / "shards")
    run = stopped(folder, step=14)
    with tarfile.open(folder / "p-004.tar", "w") as tar:
        for i in range(4):
            kind = ("across", "down")[i % 2]
            payload = encoded(pil_image(stripes(i % 2, 9000 + i)))
            add(tar, f"{kind}-{i}.png", payload)
            add(tar, f"{kind}-{i}.cls", kind.encode())
    told = []
    st.resume(run, begun=told.append, quiet=True)
    assert told[0].exact.startswith("no (images: ")
    assert "now 0 removed and 4 changed" in told[0].exact


def test_files_that_cannot_be_read_are_told(lazily, tmp_path, capsys):
    """An image that was lost for a while is another circumstance nobody can see."""
    photos = write_folder(tmp_path / "photos", count=20)
    split = whole(photos, out="whole")
    gone = next(
        r["path"] for r in read_csv(split / "split.csv") if r["split"] == "train"
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
    reason = f"1 of the images could not be read, first {gone}"
    assert f"{reason}; others of their batches were shown instead" in (
        capsys.readouterr().err
    )
    told = []
    st.resume("run", begun=told.append, quiet=True)
    assert told[0].exact == f"no ({reason})"
    assert read_json(Path("run/manifest.json"))["exact"] == f"no ({reason})"


# --- the first batches left out


class Counting(LazyPixels):
    """Notes which images are decoded."""

    def decode_batch(self, index):
        self.seen = [*getattr(self, "seen", []), *index.tolist()]
        return super().decode_batch(index)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("way", ["plain", "six", "crops"])
def test_nothing_left_out_is_decoded(lazily, shared_folder, way, workers, monkeypatch):
    run = Run(whole(shared_folder, cache="off", epochs=1, **LAZILY[way]))
    margin = 1.25 if "crop" in LAZILY[way] else 1.0
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


def test_moved_images_come_from_a_tape(shared_folder):
    """The way of `moved by whole pixels` above is the one it is meant to be."""
    data = st.load_data(shared_folder)
    views = AugmentPipeline(
        subset=data.subset("train"),
        preprocess=data.preprocess,
        augment=st.Recipe(data="x", **WAYS["moved by whole pixels"]).augmentation,
    )
    assert views.shift_buffer is not None
