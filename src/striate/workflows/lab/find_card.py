"""Find a card by its id, by the path of a study file, or by the text of a study."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from striate.workflows.lab.card import Card
from striate.workflows.lab.catalogue import load_card
from striate.workflows.lab.study_file import read_study, study_card


@lru_cache(maxsize=32)
def find_card(name: str) -> Card:
    """Return the card with an id, of a `.yaml` file, or of a study as JSON text.

    Raises:
        UnknownNameError: There is no such card; names the nearest ids.
        SettingError: A study file is wrong; names the line and the key.
    """
    if name.startswith("{"):
        return study_card(json.loads(name))
    if name.endswith((".yaml", ".yml")):
        return read_study(Path(name))
    return load_card(name)
