"""Features of the frozen backbone, computed once per image and then cached."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
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
from striate.data.cache.image_rows import batch_pixels
from striate.data.config import AugmentConfig, DataConfig
from striate.data.decode.hashing import content_hash
from striate.data.decode.preprocess import normalize
from striate.data.image_data import ImageData
from striate.data.scan import Tick
from striate.finetune.cut_points import CutPoints
from striate.finetune.freeze import FrozenLayers
from striate.finetune.split_model import CutPoint, probe_batch
from striate.run.recipe import Recipe, TrainConfig

FeatureSource = CutPoint | CutPoints
Inputs = Callable[[Tensor], Tensor]  # positions in a batch → inputs of the model
BATCH = 32  # images at a time; larger batches are not faster on a CPU


@dataclass(frozen=True, kw_only=True)
class BackboneFeatures:
    """Backbone features of all images."""

    # features of the images without augmentation, by split
    rows: Mapping[str, FeatureRows] = field(repr=False)
    # features of augmented training images, one item per augmented copy
    views: tuple[FeatureRows, ...] = field(repr=False)
    # hash of each image, by split
    keys: Mapping[str, tuple[str, ...]] = field(repr=False)
    computed: int  # number of newly computed rows; the other rows were cached
    seconds: float  # duration of the computation in seconds
    # temporary folder of the features, if there is no cache
    temporary: TemporaryFolder | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        """Return the number of features per image."""
        return int(torch.Size(self.rows["train"].shape).numel())

    @property
    def count(self) -> int:
        """Return the number of feature vectors, including those of augmented images."""
        return sum(len(rows) for rows in (*self.rows.values(), *self.views))

    @property
    def cached(self) -> int:
        """Return the number of feature vectors that were in the cache."""
        return self.count - self.computed

    def columns(self, columns: slice) -> BackboneFeatures:
        """Return a copy with only the given slice of the features of each image."""
        rows = {split: rows.columns(columns) for split, rows in self.rows.items()}
        return replace(self, rows=rows)


def compute_features(
    model: nn.Module,  # the model on the training device
    cut: FeatureSource,  # the cut point, where the backbone ends
    # The frozen layers of the backbone, which are part of the cache key.
    frozen: FrozenLayers,
    data: ImageData,
    recipe: Recipe,  # recipe with the augmentation of views, and the cache folder
    views: int = 0,  # augmented copies of each training image, besides the image itself
    tick: Tick | None = None,  # called with the numbers of images (done, total)
    # Names of the splits to compute; default: all splits.
    splits: Collection[str] | None = None,
) -> BackboneFeatures:
    """Compute the backbone features of every image whose features are not cached.

    `views` is the number of augmented copies of each training image, besides the image
    itself. The frozen layers are part of the cache key.

    Raises:
        SettingError: Views are requested without any augmentation.
        StorageError: A file could not be written.
    """
    start = time.perf_counter()
    _check_views(recipe, views)
    if splits is not None:
        some = {name: data.subsets[name] for name in data.subsets if name in splits}
        data = replace(data, subsets=some)
    with (
        evaluation_mode(model, analysis=False),
        torch.inference_mode(),
        devices.flush_denormals(),
    ):
        backbone = _Backbone(model, cut, data)
        root, temporary = _cache_root(recipe, data, backbone, views)
        store = FeatureStore(root, backbone.cache_facts(frozen), backbone.shape)
        work = _ForwardPass(backbone, store, data, recipe, tick, views)
        keys = {split: work.images(split) for split in data.subsets}
        view_keys = [work.view(i + 1, keys["train"]) for i in range(views)]
    return BackboneFeatures(
        rows={split: store.rows(of) for split, of in keys.items()},
        views=tuple(store.rows(of) for of in view_keys),
        keys=keys,
        computed=work.computed,
        seconds=time.perf_counter() - start,
        temporary=temporary,
    )


def probe_images(model: nn.Module, data: ImageData, count: int = 2) -> Tensor:
    """Return a batch of noise in the size of the images, on the device of a model."""
    x = probe_batch((data.in_chans, *data.image_size), count)
    return x.to(next(model.parameters()).device)


def _check_views(config: AugmentConfig, views: int) -> None:
    if not views:
        return
    if not config.augmentation.is_active:
        fix = "choose an augmentation: --augment six, or --flip horizontal"
        what = "augmented views without augmentation would be identical"
        raise SettingError(what, where="--views", fix=fix)
    if config.augmentation.mixes_images:
        fix = "remove --mixup and --cutmix"
        what = "augmented views cannot be combined with mixup or cutmix"
        raise SettingError(what, where="--views", fix=fix)


class _Backbone:
    """Frozen part of a model, as a function from inputs to features."""

    def __init__(self, model: nn.Module, cut: FeatureSource, data: ImageData) -> None:
        self.preprocess = data.preprocess
        self._model, self._cut = model, cut
        x = probe_images(model, data)
        self.device = x.device
        self._output = self(x)
        self.shape = tuple(self._output.shape[1:])
        self.row_bytes = self._output[0].numel() * 4

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features of a batch of normalized images."""
        x = x.contiguous(memory_format=torch.channels_last)
        return self._cut.features(self._model, x).float().cpu()

    def cache_facts(self, frozen: FrozenLayers) -> dict[str, object]:
        """Return all settings that determine features, for the cache key."""
        # Equal weights in other code give another output: it is part of the key.
        output = hashlib.sha256(self._output.contiguous().numpy().tobytes())
        return {
            "weights": frozen.sha256,
            "layers": list(frozen.layers),
            "network": hashlib.sha256(str(self._model).encode()).hexdigest(),
            "cut": self._cut.name,
            "probe": output.hexdigest(),
            "preprocess": self.preprocess.as_dict(),
            "striate": version("striate"),
        }


def _row_count(data: ImageData, views: int) -> int:
    count = sum(len(subset) for subset in data.subsets.values())
    return count + views * len(data.subset("train"))


def _cache_root(
    config: DataConfig, data: ImageData, backbone: _Backbone, views: int
) -> tuple[Path, TemporaryFolder | None]:
    """Return the folder for the features: in the cache, or a temporary folder."""
    size = backbone.row_bytes * _row_count(data, views)
    cache = open_cache(config.cache, config.cache_gb)
    if cache is None or not cache.fits(size):
        temporary = TemporaryFolder()
        return temporary.path, temporary
    cache.make_room(size)
    return cache.packs, None


class _ForwardPass:
    """Computation of features that are not cached, with a count of finished images."""

    def __init__(
        self,
        backbone: _Backbone,
        store: FeatureStore,
        data: ImageData,
        config: TrainConfig,
        tick: Tick | None,
        views: int,
    ) -> None:
        self._backbone, self._store = backbone, store
        self._data, self._config, self._tick = data, config, tick
        self._total = _row_count(data, views)
        self._finished = 0
        self.computed = 0

    def images(self, split: str) -> tuple[str, ...]:
        """Compute the features of a split without augmentation; return image hashes."""
        subset = self._data.subset(split)
        hashes: list[str] = []
        order = torch.split(torch.arange(len(subset)), BATCH)
        for batch in batch_pixels(subset.pixels, order):
            keys = [content_hash(image.numpy()) for image in batch.pixels]
            self._add(keys, partial(self._normalized, batch.pixels))
            hashes += keys
        return tuple(hashes)

    def _normalized(self, pixels: Tensor, index: Tensor) -> Tensor:
        return normalize(pixels[index], self._backbone.preprocess)

    def view(self, number: int, hashes: Sequence[str]) -> tuple[str, ...]:
        """Compute the features of augmented training images; return cache keys."""
        config, subset = self._config, self._data.subset("train")
        keys = _view_keys(config, number, hashes)
        if all(key in self._store for key in keys):
            self._advance(len(keys))
            return tuple(keys)
        batches = Batches(
            subset=subset,
            preprocess=self._backbone.preprocess,
            batch_size=BATCH,
            shuffle=False,
            augment=config.augmentation,
            classes=self._data.num_classes,
            seed=config.seed,
        )
        for (x, _), index in zip(batches(number), batches.indices(number), strict=True):
            self._add([keys[i] for i in index.tolist()], x.__getitem__)
        return tuple(keys)

    def _add(self, keys: Sequence[str], inputs: Inputs) -> None:
        """Compute and store missing features, only once for duplicate images."""
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        new = [i for key, i in first.items() if key not in self._store]
        if new:
            x = inputs(torch.tensor(sorted(new)))
            rows = self._backbone(x.to(self._backbone.device))
            self._store.add([keys[i] for i in sorted(new)], rows)
            self.computed += len(new)
        self._advance(len(keys))

    def _advance(self, count: int) -> None:
        self._finished += count
        if self._tick is not None:
            self._tick(self._finished, self._total)


def _view_keys(config: TrainConfig, number: int, hashes: Sequence[str]) -> list[str]:
    """Return the cache key of each augmented image (view)."""
    augmentation = [asdict(config.augmentation), config.seed, number]
    text = json.dumps(augmentation, sort_keys=True, default=str).encode()
    name = hashlib.blake2b(text, digest_size=8).hexdigest()
    return [f"{content}-{name}-{i}" for i, content in enumerate(hashes)]
