"""Pretrained weights (`--pretrained`): find, read and load a weights file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Any

from torch import nn

from striate.core.errors import StorageError, WeightsError
from striate.core.files import damaged_file_errors, hash_file, read_json
from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess
from striate.core.registry import closest_names
from striate.data.cache.cache_folder import AUTO, open_cache
from striate.data.config import DataConfig
from striate.data.image_data import ImageData
from striate.engine.weights_io import save_weights
from striate.models.adapt_first_conv import adaptation_text, fitted
from striate.models.catalogue import list_models
from striate.models.config import ModelConfig
from striate.models.downloading import local_file, location
from striate.models.pretrained_registry import PRETRAINED, PretrainedFile, known_by
from striate.models.timm import describe, fetch, is_timm
from striate.models.weights import State, put_pretrained, read
from striate.run import layout as names
from striate.run.build_network import CUSTOM
from striate.run.python_network import is_python_network
from striate.run.recipe import InputConfig, Recipe
from striate.run.run import Run
from striate.run.stored_network import network_of_run

WEIGHTS_FOLDER = "weights"  # in the cache folder: downloads, and pickles as safetensors


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A weights file with its hash, origin, preprocessing and classes."""

    path: Path
    sha256: str
    origin: str  # description of the source, for messages
    # preprocessing that the weights were trained with, if known
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] | None = None  # class names of the outputs, if known
    linear_head: bool = True  # whether the classifier head is one linear layer
    network: str = ""  # name of the network in striate, if known
    preprocess_note: str = ""  # how the original preprocessing differs from striate's


def find_weights(
    word: str | Path, cache: str = AUTO, *, offline: bool = False
) -> WeightsFile:
    """Find a weights file by path, run folder, published name or timm name.

    Raises:
        WeightsError: There are no such weights, a download has the wrong hash, or the
            weights must be downloaded and `offline` is set.
    """
    try:
        return _find(word, cache, offline)
    except OSError as error:
        what = f"the weights file cannot be read: {error.strerror or error}"
        fix = "check the path and its permissions"
        raise WeightsError(what, where=error.filename or word, fix=fix) from error


def _find(word: str | Path, cache: str, offline: bool) -> WeightsFile:
    path = Path(word).expanduser()
    if path.is_file():
        return _of_file(path)
    if is_timm(str(word)):
        return _of_timm(str(word), cache, offline)
    if (folder := names.existing_run(word)) is not None:
        return _of_run(folder)
    if str(word) in PRETRAINED:
        return _of_public(PRETRAINED[str(word)], cache, offline)
    close = closest_names(str(word), list(PRETRAINED))
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    fix = f"{hint}give a run folder, a .safetensors or .pth file, or a name listed by "
    fix += "`striate models --weights`"
    what = f"no pretrained weights are called '{word}'"
    raise WeightsError(what, where="--pretrained", fix=fix)


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _hash_once(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=16)
def _hash_once(path: Path, stamp: tuple[int, ...]) -> str:
    """Return the hash of a file, cached by path and stamp (inode, size, time)."""
    return hash_file(path)


def _of_file(path: Path) -> WeightsFile:
    sha256 = _sha256(path)
    if (public := known_by(sha256)) is not None:
        return _described(public, path, sha256)
    run = path.resolve().parent.parent
    if path.resolve() == run / names.BEST and (run / names.PREPROCESS).is_file():
        return _of_run(run)
    return WeightsFile(path=path, sha256=sha256, origin=path.name)


def _of_run(folder: Path) -> WeightsFile:
    path = folder / names.BEST
    if not path.is_file():
        fix = f"finish the run first: striate train --resume {quote(str(folder))}"
        raise WeightsError("the run has no weights yet", where=folder, fix=fix)
    images, classes = folder / names.PREPROCESS, folder / names.CLASSES
    with damaged_file_errors(images):
        preprocess = Preprocess.from_dict(read_json(images))
    with damaged_file_errors(classes):
        outputs = tuple(read_json(classes))
    recipe = Run(folder).recipe
    return WeightsFile(
        path=path,
        sha256=_sha256(path),
        origin=f"the run {folder.name}",
        preprocess=preprocess,
        classes=outputs,
        linear_head=not recipe.head_hidden,
        network=recipe.model,
    )


def _of_public(public: PretrainedFile, cache: str, offline: bool) -> WeightsFile:
    store = open_cache(cache)
    folder = store.folder / WEIGHTS_FOLDER if store else None
    path = local_file(public, folder, offline=offline)
    return _described(public, path, _sha256(path))


def _of_timm(name: str, cache: str, offline: bool) -> WeightsFile:
    about, store = describe(name), open_cache(cache)
    if store is None:
        what = f"the weights of {about.name} cannot be stored: the cache is off"
        fix = "leave out --cache off, or give a file: --pretrained PATH"
        raise WeightsError(what, where="--pretrained", fix=fix)
    path = store.folder / WEIGHTS_FOLDER / f"timm-{about.name}.safetensors"
    if not path.is_file():
        if offline:
            what = f"the weights of {about.name} are not on this machine, and --offline"
            fix = "leave out --offline, or give a file: --pretrained PATH"
            raise WeightsError(f"{what} is set", where="--pretrained", fix=fix)
        save_weights(path, fetch(name))
    return WeightsFile(
        path=path,
        sha256=_sha256(path),
        origin=f"timm's {about.name} ({about.license})",
        preprocess=about.preprocess,
        preprocess_note=about.remark,
    )


def _described(public: PretrainedFile, path: Path, sha256: str) -> WeightsFile:
    preprocess = Preprocess(
        channels=len(public.mean),
        height=public.side,
        width=public.side,
        mean=public.mean,
        std=public.std,
    )
    return WeightsFile(
        path=path,
        sha256=sha256,
        origin=f"{public.file} ({public.license})",
        preprocess=preprocess,
        network=public.network,
    )


def read_state(
    weights: WeightsFile, *, trust: bool = False, cache: str = AUTO
) -> State:
    """Return the tensors of a weights file; pickles are also cached as safetensors.

    Raises:
        WeightsError: The file is damaged, or a pickle with other objects than tensors,
            without `trust`.
    """
    store = open_cache(cache)
    if weights.path.suffix == ".safetensors" or store is None:
        return read(weights.path, trust=trust)
    cached = store.folder / WEIGHTS_FOLDER / f"{weights.sha256}.safetensors"
    if cached.is_file():
        with suppress(WeightsError):  # a damaged copy is written again
            return read(cached)
    state = read(weights.path, trust=trust)
    with suppress(StorageError):
        save_weights(cached, state)
    return state


def preprocess_settings(config: InputConfig) -> dict[str, Any]:
    """Return the preprocessing settings: those of the user, else those of the weights.

    Raises:
        WeightsError: The pretrained weights do not exist.
    """
    own = _own(config)
    normalize = "data" if config.normalize == AUTO else config.normalize
    if _takes_statistics(config, own):
        normalize = "none"  # mean and std are set later
    expected = own or Preprocess(channels=1, height=1, width=1)
    settings = {"normalize": normalize}
    for name in ("resize", "background", "white_level"):
        value = getattr(config, name)
        settings[name] = getattr(expected, name) if value is None else value
    size = config.image_size or ((own.height, own.width) if own else None)
    return {"image_size": size, **settings}


def with_weights_statistics(data: ImageData, config: InputConfig) -> ImageData:
    """Return the data with the mean and std that the pretrained weights expect."""
    own = _own(config)
    if own is None or not _takes_statistics(config, own):
        return data
    mean, std = fitted(own, data.in_chans)
    preprocess = replace(data.preprocess, mean=mean, std=std)
    return replace(data, preprocess=preprocess, measured=False)


def _own(config: InputConfig) -> Preprocess | None:
    return None if config.pretrained is None else _weights_of(config).preprocess


def _takes_statistics(config: DataConfig, own: Preprocess | None) -> bool:
    explicit = config.normalize != AUTO or config.mean or config.std
    return own is not None and not explicit


def load_recipe_weights(config: InputConfig, model: nn.Module, data: ImageData) -> None:
    """Load pretrained weights into a network; the head only for equal class names.

    Raises:
        WeightsError: The weights are of another network, damaged, not finite, or a
            pickle with other objects than tensors, without `--trust`.
    """
    weights = _weights_of(config)
    _check_network(weights, config)
    state = read_state(weights, trust=config.trust, cache=config.cache)
    head = _keeps_head(weights, config, data)
    same = weights.network == config.model
    put_pretrained(model, state, weights.path, head=head, same_network=same)


def with_known_network(recipe: Recipe) -> Recipe:
    """Return the recipe with the network of its pretrained weights, for `auto`.

    Raises:
        WeightsError: There are no such weights, or their network is unknown.
    """
    if recipe.pretrained is None or recipe.model != AUTO:
        return recipe
    name = recipe.pretrained
    network = name if is_timm(name) else _weights_of(recipe).network
    if not network or network.startswith(CUSTOM):
        what = f"the network of the weights '{recipe.pretrained}' is unknown"
        fix = "add --model, for example --model mobilenet_v2"
        raise WeightsError(what, where="--pretrained", fix=fix)
    if is_python_network(network):
        folder = _weights_of(recipe).path.parent.parent
        record = Run(folder).manifest.get("network", {})
        network = network_of_run(folder, network, record, trust=recipe.trust)
    return replace(recipe, model=network)


def _check_network(weights: WeightsFile, config: ModelConfig) -> None:
    """Raise an error for weights of another network with the same names and shapes.

    Networks with and without shortcuts, with other strides, or with blur pooling have
    equal tensor names and shapes. Auxiliary heads may be missing.
    """
    pair = (weights.network, config.model)
    source, target = (name.replace("_no_aux", "") for name in pair)
    all_names = {name.replace("_no_aux", "") for name in list_models()}
    if source != target and {source, target} <= all_names:
        what = f"these weights are for {weights.network}, not for {config.model}"
        fix = f"use --model {weights.network}"
        raise WeightsError(what, where=weights.path, fix=fix)


def _weights_of(config: InputConfig) -> WeightsFile:
    """Return the weights file of a recipe; timm models get timm's preprocessing."""
    word, cache = str(config.pretrained), config.cache
    weights = find_weights(word, cache, offline=config.offline)
    if weights.preprocess is None and is_timm(config.model):
        about = describe(config.model)
        note = about.remark
        return replace(weights, preprocess=about.preprocess, preprocess_note=note)
    return weights


def _keeps_head(weights: WeightsFile, config: ModelConfig, data: ImageData) -> bool:
    linear = weights.linear_head and not config.head_hidden
    return linear and weights.classes == data.labels.names


def pretrained_record(config: InputConfig, data: ImageData) -> dict[str, Any]:
    """Return the manifest entry of the pretrained weights; empty if there are none."""
    if config.pretrained is None:
        return {}
    weights = _weights_of(config)
    return {
        "pretrained": {
            "file": str(weights.path),
            "sha256": weights.sha256,
            "origin": weights.origin,
            "head": "kept" if _keeps_head(weights, config, data) else "new",
        }
    }


def pretrained_notes(config: InputConfig, data: ImageData) -> list[str]:
    """Return notes on how the pretrained weights are used."""
    if config.pretrained is None:
        return []
    weights = _weights_of(config)
    head = "is loaded too, because the classes are equal"
    if not _keeps_head(weights, config, data):
        head = (
            "is initialized randomly, for "
            f"{count_text(data.num_classes, 'class', 'classes')}"
        )
    notes = [f"pretrained weights: {weights.origin}; the head {head}"]
    if weights.preprocess is None:
        return [
            *notes,
            "the preprocessing of the pretrained weights is unknown: check "
            "--image-size and --normalize (imagenet for most public weights)",
        ]
    changed = adaptation_text(weights.preprocess.channels, data.in_chans)
    return [*notes, *filter(None, [changed, weights.preprocess_note])]


def check_same_weights(config: InputConfig, manifest: dict[str, Any]) -> None:
    """Raise an error if the pretrained weights changed since the run started."""
    if config.pretrained is None or "pretrained" not in manifest:
        return
    before, weights = manifest["pretrained"]["sha256"], _weights_of(config)
    if weights.sha256 != before:
        hashes = f"hash {before[:16]}, now {weights.sha256[:16]}"
        what = f"the weights file changed: {hashes}"
        fix = "restore the file, or train again without --resume"
        raise WeightsError(what, where=weights.path, fix=fix)


def weights_rows() -> list[dict[str, str | int]]:
    """Return the table rows of `striate models --weights`."""
    store = open_cache(AUTO)
    folder = store.folder / WEIGHTS_FOLDER if store else None
    return [
        {
            "name": name,
            "file": PRETRAINED[name].file,
            "classes": PRETRAINED[name].classes,
            "here": location(PRETRAINED[name], folder),
            "licence": PRETRAINED[name].license,
            "sha256": PRETRAINED[name].sha256,
        }
        for name in PRETRAINED
    ]
