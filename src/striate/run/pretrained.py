"""`--pretrained`: which weights a word means, how their images were made, loading."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from striate.core.errors import RunError, StorageError, WeightsError
from striate.core.files import damaged_file_errors, hash_file, read_json
from striate.core.preprocess import Preprocess
from striate.core.registry import closest_names
from striate.data.cache.cache_folder import AUTO, open_cache
from striate.data.image_data import ImageData
from striate.engine.weights_io import save_weights
from striate.models.adapt import adaptation_text, fitted
from striate.models.catalogue import list_models
from striate.models.downloading import local_file, location
from striate.models.pretrained_registry import PRETRAINED, PretrainedFile, known_by
from striate.models.timm import describe, fetch, is_timm
from striate.models.weights import State, put_pretrained, read
from striate.run import layout as names
from striate.run.recipe import Recipe
from striate.run.run import Run

KEPT = "weights"  # in the cache folder: downloads, and pickles as safetensors


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights, and what is known of it.

    Args:
        path: Where it lies.
        sha256: Of the file.
        origin: What to call it.
        preprocess: How its images were made, where it says.
        classes: What its outputs mean, where it says.
        plain: Its head is one dense layer.
        network: Whose they are, by our name, where that is known.
        remark: What differs between how its images were made and how ours are.
    """

    path: Path
    sha256: str
    origin: str
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] | None = None
    plain: bool = True
    network: str = ""
    remark: str = ""


def find_weights(word: str | Path, cache: str = AUTO) -> Weights:
    """Return the weights that a word means: a file, a run, a public name, timm's.

    Args:
        word: As the user gave it.
        cache: The cache folder, see `open_cache`; downloads are kept there.

    Raises:
        WeightsError: It is none of these, or a download is not what it should be.
    """
    try:
        return _found(word, cache)
    except OSError as error:
        what = f"these weights cannot be read: {error.strerror or error}"
        fix = "check the path, and who may read it"
        raise WeightsError(what, where=error.filename or word, fix=fix) from error


def _found(word: str | Path, cache: str) -> Weights:
    path = Path(word).expanduser()
    if path.is_file():
        return _of_file(path)
    if is_timm(str(word)):
        return _of_timm(str(word), cache)
    folder = None
    with suppress(RunError):
        folder = names.find_run(word)
    if folder is not None:
        return _of_run(folder)
    if str(word) in PRETRAINED:
        return _of_public(PRETRAINED[str(word)], cache)
    close = closest_names(str(word), list(PRETRAINED))
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    fix = f"{hint}give a run folder, a .safetensors or .pth, or a name that `striate "
    fix += "models --weights` lists"
    raise WeightsError(f"no weights are '{word}'", where="--pretrained", fix=fix)


def _of_file(path: Path) -> Weights:
    sha256 = hash_file(path)
    if (public := known_by(sha256)) is not None:
        return _described(public, path, sha256)
    run = path.resolve().parent.parent
    if path.resolve() == run / names.BEST and (run / names.PREPROCESS).is_file():
        return _of_run(run)
    return Weights(path=path, sha256=sha256, origin=path.name)


def _of_run(folder: Path) -> Weights:
    path = folder / names.BEST
    if not path.is_file():
        fix = f"finish it first: striate train --resume {folder}"
        raise WeightsError("this run has no weights yet", where=folder, fix=fix)
    images, classes = folder / names.PREPROCESS, folder / names.CLASSES
    with damaged_file_errors(images):
        preprocess = Preprocess.from_dict(read_json(images))
    with damaged_file_errors(classes):
        outputs = tuple(read_json(classes))
    recipe = Run(folder).recipe
    return Weights(
        path=path,
        sha256=hash_file(path),
        origin=f"the run {folder.name}",
        preprocess=preprocess,
        classes=outputs,
        plain=not recipe.head_hidden,
        network=recipe.model,
    )


def _of_public(public: PretrainedFile, cache: str) -> Weights:
    store = open_cache(cache)
    path = local_file(public, store.folder / KEPT if store else None)
    return _described(public, path, hash_file(path))


def _of_timm(name: str, cache: str) -> Weights:
    about, store = describe(name), open_cache(cache)
    if store is None:
        what = f"the weights of {about.name} cannot be kept: there is no cache"
        fix = "leave --cache off out, or give a file: --pretrained PATH"
        raise WeightsError(what, where="--pretrained", fix=fix)
    path = store.folder / KEPT / f"timm-{about.name}.safetensors"
    if not path.is_file():
        save_weights(path, fetch(name))
    return Weights(
        path=path,
        sha256=hash_file(path),
        origin=f"timm's {about.name} ({about.license})",
        preprocess=about.preprocess,
        remark=about.remark,
    )


def _described(public: PretrainedFile, path: Path, sha256: str) -> Weights:
    preprocess = Preprocess(
        channels=len(public.mean),
        height=public.side,
        width=public.side,
        mean=public.mean,
        std=public.std,
    )
    return Weights(
        path=path,
        sha256=sha256,
        origin=f"{public.file} ({public.license})",
        preprocess=preprocess,
        network=public.network,
    )


def read_state(weights: Weights, *, trust: bool = False, cache: str = AUTO) -> State:
    """Return the tensors of a file; a pickle is read once and kept as safetensors.

    Raises:
        WeightsError: It is damaged, or a pickle that is neither known nor trusted.
    """
    store = open_cache(cache)
    if weights.path.suffix == ".safetensors" or store is None:
        return read(weights.path, trust=trust)
    kept = store.folder / KEPT / f"{weights.sha256}.safetensors"
    if kept.is_file():
        with suppress(WeightsError):  # a damaged copy is made again
            return read(kept)
    state = read(weights.path, trust=trust)
    with suppress(StorageError):
        save_weights(kept, state)
    return state


def reading_settings(recipe: Recipe) -> dict[str, Any]:
    """Return how images are made: as given, else as the weights' own were.

    Raises:
        WeightsError: There are no such weights.
    """
    own = _own(recipe)
    normalize = "data" if recipe.normalize == AUTO else recipe.normalize
    if _takes_statistics(recipe, own):
        normalize = "none"  # nothing is measured; `as_weights_want` puts them in
    ours = {
        name: getattr(recipe, name) for name in ("resize", "background", "white_level")
    }
    theirs = own or Preprocess(channels=1, height=1, width=1)
    return {
        "image_size": recipe.image_size or ((own.height, own.width) if own else None),
        "normalize": normalize,
        **{n: getattr(theirs, n) if v is None else v for n, v in ours.items()},
    }


def as_weights_want(data: ImageData, recipe: Recipe) -> ImageData:
    """Return data with the weights' own mean and deviation, for its channels."""
    own = _own(recipe)
    if own is None or not _takes_statistics(recipe, own):
        return data
    mean, std = fitted(own, data.in_chans)
    preprocess = replace(data.preprocess, mean=mean, std=std)
    return replace(data, preprocess=preprocess, measured=False)


def _own(recipe: Recipe) -> Preprocess | None:
    return None if recipe.pretrained is None else _asked(recipe).preprocess


def _takes_statistics(recipe: Recipe, own: Preprocess | None) -> bool:
    given = recipe.normalize != AUTO or recipe.mean or recipe.std
    return own is not None and not given


def load_weights_of(recipe: Recipe, model: nn.Module, data: ImageData) -> None:
    """Put a recipe's weights into a network; its head stays new unless classes agree.

    Raises:
        WeightsError: They are another network's, damaged, not finite or not trusted.
    """
    weights = _asked(recipe)
    _check_network(weights, recipe)
    state = read_state(weights, trust=recipe.trust, cache=recipe.cache)
    head = _keeps_head(weights, recipe, data)
    same = weights.network == recipe.model
    put_pretrained(model, state, weights.path, head=head, same_network=same)


def _check_network(weights: Weights, recipe: Recipe) -> None:
    """Refuse another network of ours, whose names and shapes may be the same.

    So are those of a network with shortcuts and of the plain one, of one with its
    strides elsewhere, or with blurs. Auxiliary heads may be left away.
    """
    theirs, ours = (n.replace("_no_aux", "") for n in (weights.network, recipe.model))
    known = {name.replace("_no_aux", "") for name in list_models()}
    if theirs != ours and {theirs, ours} <= known:
        what = f"these weights are of {weights.network}, not of {recipe.model}"
        fix = f"use --model {weights.network}"
        raise WeightsError(what, where=weights.path, fix=fix)


def _asked(recipe: Recipe) -> Weights:
    """Return a recipe's weights; timm knows how images of its networks were made."""
    found = find_weights(str(recipe.pretrained), recipe.cache)
    if found.preprocess is None and is_timm(recipe.model):
        about = describe(recipe.model)
        return replace(found, preprocess=about.preprocess, remark=about.remark)
    return found


def _keeps_head(weights: Weights, recipe: Recipe, data: ImageData) -> bool:
    dense = weights.plain and not recipe.head_hidden
    return dense and weights.classes == data.labels.names


def weights_facts(recipe: Recipe, data: ImageData) -> dict[str, Any]:
    """Return what a manifest says of the weights a run begins with; empty of none."""
    if recipe.pretrained is None:
        return {}
    weights = _asked(recipe)
    return {
        "pretrained": {
            "file": str(weights.path),
            "sha256": weights.sha256,
            "origin": weights.origin,
            "head": "kept" if _keeps_head(weights, recipe, data) else "new",
        }
    }


def weights_notes(recipe: Recipe, data: ImageData) -> list[str]:
    """Say what was done to the weights, and what they do not say of themselves."""
    if recipe.pretrained is None:
        return []
    weights = _asked(recipe)
    head = "is kept: the classes are the same"
    if not _keeps_head(weights, recipe, data):
        head = f"is new, for {data.num_classes} classes"
    notes = [f"begins with {weights.origin}; the head {head}"]
    if weights.preprocess is None:
        return [
            *notes,
            "these weights do not say how their images were made: check --image-size "
            "and --normalize (imagenet for most public ones)",
        ]
    changed = adaptation_text(weights.preprocess.channels, data.in_chans)
    return [*notes, *filter(None, [changed, weights.remark])]


def check_same_weights(recipe: Recipe, manifest: dict[str, Any]) -> None:
    """Refuse to begin a run again from other weights than it began with.

    Raises:
        WeightsError: The file is not what it was.
    """
    if recipe.pretrained is None or "pretrained" not in manifest:
        return
    before, weights = manifest["pretrained"]["sha256"], _asked(recipe)
    if weights.sha256 != before:
        what = f"the weights were {before[:16]} and are now {weights.sha256[:16]}"
        fix = "put the file back, or train anew without --resume"
        raise WeightsError(what, where=weights.path, fix=fix)


def weights_rows(cache: str = AUTO) -> list[dict[str, str | int]]:
    """Return name, file, classes, place, licence and hash of all public weights."""
    store = open_cache(cache)
    folder = store.folder / KEPT if store else None
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
