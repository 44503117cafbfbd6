"""Find the names that striate has for settings of other libraries."""

from __future__ import annotations

from collections.abc import Iterable

from striate.core.errors import UnknownNameError
from striate.core.registry import unknown_name_error
from striate.core.synonym_table import SYNONYMS, Synonym


def plain_name(word: str) -> str:
    """Return the name in a flag: lower case, with underscores and without hyphens.

    Example:
        >>> plain_name("--Learning-Rate")
        'learning_rate'
    """
    return word.strip().lstrip("-—–").lower().replace("-", "_")


_BY_NAME = {name: synonym for synonym in SYNONYMS for name in synonym.names.split()}


def synonym_of(word: str) -> Synonym | None:
    """Return the synonym for a flag or setting of another library, if it is known."""
    return _BY_NAME.get(plain_name(word))


def unknown_setting_error(name: str, settings: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown setting in Python or in a YAML file.

    Example:
        >>> print(unknown_setting_error("num_epochs", ["epochs", "lr"]))
        no setting is called 'num_epochs'
          do:    use epochs
    """
    names = list(settings)
    synonym = synonym_of(name)
    if synonym is None:
        return unknown_name_error("setting", name, names)
    what = f"no setting is called '{name}'"
    known = {key.upper(): key for key in names} | {key: key for key in names}
    target = synonym.target_in(known)
    if not target:
        name = synonym.targets.partition(" ")[0].lower()
        fix = f"striate calls it {name}, but it is not a setting here"
        return UnknownNameError(
            what, fix=synonym.absent or fix if name else synonym.note
        )
    value = f"={synonym.value}" if synonym.value else ""
    note = f" ({synonym.note})" if synonym.note else ""
    return UnknownNameError(what, fix=f"use {known[target]}{value}{note}")
