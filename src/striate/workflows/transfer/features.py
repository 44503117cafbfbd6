"""The one pass: every image, and every view asked for, once through the body."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.core import device as devices
from striate.core.errors import SettingError
from striate.core.hooks import evaluation_mode
from striate.data.batches import Batches
from striate.data.cache.cache_folder import TemporaryFolder, open_cache
from striate.data.cache.feature_cache import FeatureRows, FeatureStore
from striate.data.cache.pixel_rows import batch_pixels
from striate.data.decode.hashing import content_hash
from striate.data.decode.preprocess import normalize
from striate.data.image_data import ImageData
from striate.data.scan import Tick
from striate.finetune.cut_points import CutPoints
from striate.finetune.freeze import Frozen
from striate.finetune.split_model import Cut, probe
from striate.run.recipe import Recipe

Body = Cut | CutPoints
Inputs = Callable[[Tensor], Tensor]  # places in a batch → what the network takes
BATCH = 32  # images at a time; more gain nothing on a processor


@dataclass(frozen=True, kw_only=True)
class Featured:
    """What the body made of all images.

    Args:
        rows: By part, of the images as they are.
        views: Of the training split, changed in so many ways.
        keys: By part, each image's hash.
        computed: Rows that were computed now; the others were there.
        seconds: That took.
        passing: Holds the rows where there is no cache.
    """

    rows: Mapping[str, FeatureRows] = field(repr=False)
    views: tuple[FeatureRows, ...] = field(repr=False)
    keys: Mapping[str, tuple[str, ...]] = field(repr=False)
    computed: int
    seconds: float
    passing: TemporaryFolder | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        """Return the numbers of a row."""
        return int(torch.Size(self.rows["train"].shape).numel())

    @property
    def count(self) -> int:
        """Return how many rows there are."""
        every = (*self.rows.values(), *self.views)
        return sum(len(rows) for rows in every)

    def columns(self, some: slice) -> Featured:
        """Return the same with some of the numbers of each row."""
        rows = {name: of.columns(some) for name, of in self.rows.items()}
        return replace(self, rows=rows)


def featured(
    model: nn.Module,
    cut: Body,
    frozen: Frozen,
    data: ImageData,
    recipe: Recipe,
    views: int = 0,
    tick: Tick | None = None,
    splits: Collection[str] | None = None,
) -> Featured:
    """Run what is frozen over every image, but for those whose features are kept.

    Args:
        model: Where it computes.
        cut: How far it runs.
        frozen: What of it does not change: the key of what is kept.
        data: The images.
        recipe: Says how views are changed, and where the cache is.
        views: Of each training image, besides the image itself.
        tick: Told (done, all).
        splits: Whose images; all of them where not given.

    Raises:
        SettingError: Views are asked for, and nothing is to be changed.
        StorageError: The disk refused.
    """
    began = time.perf_counter()
    _check_views(recipe, views)
    if splits is not None:
        some = {name: data.subsets[name] for name in data.subsets if name in splits}
        data = replace(data, subsets=some)
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(devices.flush_denormals())
        body = _Body(model, cut, data, recipe)
        root, passing = _place(recipe, data, body, views)
        store = FeatureStore(root, body.facts(frozen), body.shape)
        work = _Pass(body, store, data, recipe, tick, views)
        keys = {name: work.plain(name) for name in data.subsets}
        seen = [work.view(number, keys["train"]) for number in range(1, views + 1)]
        rows = {name: store.rows(of) for name, of in keys.items()}
        changed = tuple(store.rows(of) for of in seen)
    return Featured(
        rows=rows,
        views=changed,
        keys=keys,
        computed=work.computed,
        seconds=time.perf_counter() - began,
        passing=passing,
    )


def _check_views(recipe: Recipe, views: int) -> None:
    if not views:
        return
    if not recipe.augmentation.is_active:
        fix = "say what may change: --augment six, or --flip sides"
        raise SettingError("views would all be alike", where="--views", fix=fix)
    if recipe.augmentation.mixes_images:
        fix = "leave --mixup and --cutmix out"
        what = "a view is of one image, and these mix two"
        raise SettingError(what, where="--views", fix=fix)


class _Body:
    """The part of a network that runs once."""

    def __init__(
        self, model: nn.Module, cut: Body, data: ImageData, recipe: Recipe
    ) -> None:
        self.device = devices.select_device(recipe.device)
        self.preprocess = data.preprocess
        self._model, self._cut = model, cut
        x = probe((data.in_chans, *data.image_size))
        self._answer = self(x.to(self.device))
        self.shape = tuple(self._answer.shape[1:])
        self.weight = self._answer[0].numel() * 4

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features of a batch as the network takes it."""
        x = x.contiguous(memory_format=torch.channels_last)
        return self._cut.features(self._model, x).float().cpu()

    def facts(self, frozen: Frozen) -> dict[str, object]:
        """Return everything that features depend on but the image."""
        # Equal weights in other code answer otherwise: a probe tells.
        said = hashlib.sha256(self._answer.contiguous().numpy().tobytes())
        return {
            "weights": frozen.sha256,
            "layers": list(frozen.layers),
            "network": hashlib.sha256(str(self._model).encode()).hexdigest(),
            "cut": self._cut.name,
            "probe": said.hexdigest(),
            "preprocess": self.preprocess.as_dict(),
            "striate": version("striate"),
        }


def _place(
    recipe: Recipe, data: ImageData, body: _Body, views: int
) -> tuple[Path, TemporaryFolder | None]:
    """Return where rows are kept: among the packs, or while this program runs."""
    count = sum(len(subset) for subset in data.subsets.values())
    size = body.weight * (count + views * len(data.subset("train")))
    cache = open_cache(recipe.cache, recipe.cache_gb)
    if cache is None or not cache.fits(size):
        passing = TemporaryFolder()
        return passing.path, passing
    cache.make_room(size)
    return cache.packs, None


class _Pass:
    """Goes over images, computes what is not kept, and counts."""

    def __init__(
        self,
        body: _Body,
        store: FeatureStore,
        data: ImageData,
        recipe: Recipe,
        tick: Tick | None,
        views: int,
    ) -> None:
        self._body, self._store = body, store
        self._data, self._recipe, self._tick = data, recipe, tick
        self._all = sum(len(subset) for subset in data.subsets.values())
        self._all += views * len(data.subset("train"))
        self._done = 0
        self.computed = 0

    def plain(self, name: str) -> tuple[str, ...]:
        """Go over a part as it is; return each image's hash."""
        subset = self._data.subset(name)
        found: list[str] = []
        order = torch.split(torch.arange(len(subset)), BATCH)
        for batch in batch_pixels(subset.pixels, order):
            keys = [content_hash(image.numpy()) for image in batch.pixels]
            self._add(keys, partial(self._normalized, batch.pixels))
            found += keys
        return tuple(found)

    def _normalized(self, pixels: Tensor, index: Tensor) -> Tensor:
        return normalize(pixels[index], self._body.preprocess)

    def view(self, number: int, contents: Sequence[str]) -> tuple[str, ...]:
        """Go over the training split, every image changed; return the views' names."""
        recipe, subset = self._recipe, self._data.subset("train")
        keys = list(_view_keys(recipe, number, contents))
        if all(key in self._store for key in keys):
            self._note(len(keys))
            return tuple(keys)
        batches = Batches(
            subset=subset,
            preprocess=self._body.preprocess,
            batch_size=BATCH,
            shuffle=False,
            augment=recipe.augmentation,
            classes=self._data.num_classes,
            seed=recipe.seed,
        )
        for (x, _), index in zip(batches(number), batches.indices(number), strict=True):
            self._add([keys[i] for i in index.tolist()], x.__getitem__)
        return tuple(keys)

    def _add(self, keys: Sequence[str], inputs: Inputs) -> None:
        """Compute the features that are not kept; copies within a batch once."""
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        new = [i for key, i in first.items() if key not in self._store]
        if new:
            x = inputs(torch.tensor(sorted(new)))
            rows = self._body(x.to(self._body.device))
            self._store.add([keys[i] for i in sorted(new)], rows)
            self.computed += len(new)
        self._note(len(keys))

    def _note(self, count: int) -> None:
        self._done += count
        if self._tick is not None:
            self._tick(self._done, self._all)


def _view_keys(recipe: Recipe, number: int, contents: Sequence[str]) -> Iterator[str]:
    """Yield what a view is of: an image, the change, and the place it is drawn for."""
    change = [asdict(recipe.augmentation), recipe.seed, number]
    text = json.dumps(change, sort_keys=True, default=str).encode()
    name = hashlib.blake2b(text, digest_size=8).hexdigest()
    for place, content in enumerate(contents):
        yield f"{content}-{name}-{place}"
