"""Copy of a user's network code in the run folder, and whether the code is trusted.

Code is trusted if the user has named it on this machine (`--model net.py`) or has asked
for it (`--trust`). Then its hash is in the user's cache folder, outside of all run
folders. Other code, such as that of a run folder from someone else, is not executed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from striate.core.errors import RunError, StorageError
from striate.core.files import hash_rows, make_folder, read_json, write_bytes
from striate.data.cache.cache_folder import open_cache
from striate.run.build_network import CUSTOM
from striate.run.layout import MANIFEST, NETWORK
from striate.run.python_network import (
    executed_files,
    is_python_network,
    network_files,
    split_python_name,
)

TRUSTED = "trusted_networks"  # folder in the cache: one empty file per hash


def code_hash(expression: str, files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 hash of the code of a network and of its expression.

    Example:
        >>> code_hash("Net", {"net.py": b""}) == code_hash("Net()", {"net.py": b""})
        False
    """
    return hash_rows([(expression,), *sorted(files.items())])


def store_network(folder: Path, model: str) -> dict[str, Any]:
    """Copy the code of a network into a run folder; return its manifest entry.

    The code is trusted from now on. For networks without own code, nothing is copied.
    """
    if not is_python_network(model):
        return {}
    path, expression = split_python_name(model)
    if (folder / NETWORK / path.name).is_file():  # the run starts again
        return {"network": read_json(folder / MANIFEST).get("network", {})}
    files = executed_files(path)
    for name, content in files.items():
        make_folder((folder / NETWORK / name).parent)
        write_bytes(folder / NETWORK / name, content)
    digest = code_hash(expression, files)
    trust_code(digest)
    source = {"source": str(path.resolve()), "sha256": digest, "files": [*files]}
    return {"network": source}


def network_of_run(
    folder: Path, model: str, record: Mapping[str, Any], *, trust: bool = False
) -> str:
    """Return the name of the network to build for a run.

    For a user's own Python file, this is its copy in the run folder, if the copy may be
    executed.

    Args:
        folder: The run folder.
        model: Name of the network in the settings of the run.
        record: Manifest entry of the network.
        trust: Whether the user trusts the code; then it is trusted from now on.

    Raises:
        RunError: The network was a Python object, its copy is missing, or the code is
            not trusted.
    """
    if model.startswith(CUSTOM):
        what = f"the model is a Python object ({model.removeprefix(CUSTOM)})"
        fix = "give the model: --model FILE.py:CLASS, or in Python "
        fix += "striate.load_run(path, model=...) or resume(model=...)"
        raise RunError(what, where=folder, fix=fix)
    if not is_python_network(model):
        return model
    path, expression = split_python_name(model)
    copy = folder / NETWORK / path.name
    own = f"--model {path.name}:{expression or 'CLASS'}"
    if not copy.is_file():
        what = f"the code of the network is missing: {NETWORK}/{path.name}"
        raise RunError(what, where=folder, fix=f"add your own file: {own}")
    root = folder / NETWORK
    # All files count: an additional file could be imported in place of another one.
    files = {
        file.relative_to(root).as_posix(): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }
    digest = code_hash(expression, files)
    if trust:
        trust_code(digest)
    elif not is_trusted(digest):
        what = "the network of this run is Python code that was not named on this "
        fix = "read the file; to execute it, add --trust once, for example: striate "
        fix += f"summary {folder} --trust; or give your own file: {own}"
        raise RunError(f"{what}machine; it is not executed", where=copy, fix=fix)
    _note_change(record, digest, expression, copy)
    return f"{copy}:{expression}"


def _note_change(
    record: Mapping[str, Any], digest: str, expression: str, copy: Path
) -> None:
    """Print a note if the user's file has changed since the run was trained."""
    source = Path(str(record.get("source", "")))
    if not source.is_file() or source.suffix != ".py":
        return
    if code_hash(expression, network_files(source)) != digest:
        text = f"note: {source} has changed since this run; its copy is used: {copy}"
        print(f"{text} (your file: --model {source.name}:CLASS)", file=sys.stderr)


def is_trusted_file(model: str) -> bool:
    """Return whether the user has named or trusted the code of a Python network.

    A file that does not exist counts as trusted: another error will say so.
    """
    if not is_python_network(model):
        return True
    path, expression = split_python_name(model)
    if not path.is_file():
        return True
    return is_trusted(code_hash(expression, network_files(path)))


def trust_code(digest: str) -> None:
    """Remember that the user trusts the code of this hash, if the cache is writable."""
    cache = open_cache()
    if cache is None:
        return
    try:
        make_folder(cache.folder / TRUSTED)
        (cache.folder / TRUSTED / digest).touch()
    except (OSError, StorageError):
        return


def is_trusted(digest: str) -> bool:
    """Return whether the user has named or trusted the code of this hash."""
    cache = open_cache()
    return cache is not None and (cache.folder / TRUSTED / digest).is_file()
