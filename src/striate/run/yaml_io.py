"""Read and write settings as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from striate.core.errors import SettingError

if TYPE_CHECKING:
    from striate.run.recipe import Recipe


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML loader that also refuses duplicate keys and aliases."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse duplicate keys, of which YAML would silently take the last."""
        keys = [str(key.value).replace("-", "_") for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise SettingError(f"'{twice[0]}' is set twice", where=node.start_mark)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of them can expand to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise SettingError("YAML aliases (*name) are not allowed", where=mark)
        return super().compose_node(parent, index)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; no code in it is run.

    Raises:
        SettingError: No such file, not YAML, or not a mapping.
    """
    try:
        with path.open(encoding="utf-8") as file:
            loaded = yaml.load(file, _StrictLoader)  # noqa: S506, TID251 - a SafeLoader
    except OSError as error:
        what = f"cannot read the settings: {error.strerror}"
        raise SettingError(what, where=path) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SettingError(f"not plain YAML: {error}", where=path) from error
    if not isinstance(loaded, dict):
        raise SettingError("the file has no `name: value` lines", where=path)
    return {str(name).replace("-", "_"): value for name, value in loaded.items()}


def settings_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML, for `read_settings`."""
    return yaml.safe_dump(recipe.as_dict(), sort_keys=False, allow_unicode=True)
