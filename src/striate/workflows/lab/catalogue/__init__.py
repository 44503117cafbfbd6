"""Cards of the lab: one file for each claim, in the order of their ids."""

from __future__ import annotations

import importlib
from functools import cache

from striate.core.registry import unknown_name_error
from striate.workflows.lab.card import Card

# File of each card; a file is imported when its card is used.
CARD_FILES = {
    "E1": "e01_relu_against_tanh",
    "E2": "e02_overlapping_pooling",
    "E3": "e03_lrn",
    "E4": "e04_overfitting",
    "E5": "e05_small_kernels",
    "E6": "e06_bottleneck",
    "E7": "e07_pooling",
    "E8": "e08_depth",
    "E8b": "e08b_vanishing_gradients",
    "E9": "e09_activations",
    "E10": "e10_dilation_groups",
    "E11": "e11_selectivity",
    "E12": "e12_where_to_cut",
    "E13": "e13_data_and_architecture",
    "P1": "p1_parameters",
    "P2": "p2_one_pixel",
    "P3": "p3_linear_layers",
    "P4": "p4_dropout_ensemble",
}


@cache
def load_card(card_id: str) -> Card:
    """Return the card with an id, such as `E2`; upper and lower case are the same.

    Raises:
        UnknownNameError: There is no such card; names the nearest ids.

    Example:
        >>> load_card("e2").title
        'Overlapping pooling'
    """
    names = {name.lower(): name for name in CARD_FILES}
    name = names.get(card_id.lower())
    if name is None:
        raise unknown_name_error("card", card_id, CARD_FILES, where="striate lab run")
    module = importlib.import_module(f"{__name__}.{CARD_FILES[name]}")
    card: Card = module.CARD
    return card


def all_cards() -> list[Card]:
    """Return all cards in the order of the catalogue."""
    return [load_card(name) for name in CARD_FILES]
