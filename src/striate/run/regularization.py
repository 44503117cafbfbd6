"""Switches of a run that act on layers: dropout and stochastic depth."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from striate.core.errors import SettingError
from striate.layers.drop_path import set_drop_path
from striate.run.recipe import Recipe


def regularize(model: nn.Module, recipe: Recipe) -> None:
    """Set the network's dropout and stochastic depth as the recipe says.

    Raises:
        SettingError: It has no layer that could do so.
    """
    if recipe.dropout is not None:
        set_dropout(model, recipe.dropout)
    if recipe.drop_path:
        set_drop_path(model, recipe.drop_path)


def set_dropout(model: nn.Module, rate: float) -> None:
    """Give every dropout layer of a network a rate.

    Raises:
        SettingError: It has none.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
        >>> set_dropout(model, 0.1)
        >>> model[1]
        Dropout(p=0.1, inplace=False)
    """
    layers = [m for m in model.modules() if isinstance(m, _DropoutNd)]
    if not layers:
        what = "dropout sets the rate of dropout layers, and the network has none"
        fix = "use a network with some (tutorial_color, vgg16), or --drop-path"
        raise SettingError(what, where="--dropout", fix=fix)
    for layer in layers:
        layer.p = rate
