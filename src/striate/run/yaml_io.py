"""Read and write settings as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from striate.core.errors import SettingError


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML loader that raises an error for duplicate keys and aliases."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Construct a dict from a YAML mapping; raise an error for a duplicate key."""
        keys = [str(key.value).replace("-", "_") for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            what = f"the setting '{twice[0]}' is given twice"
            raise SettingError(what, where=node.start_mark)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a YAML node; raise an error for aliases, which can need gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise SettingError("YAML aliases (*name) are not allowed", where=mark)
        return super().compose_node(parent, index)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings, without executing code.

    Raises:
        SettingError: The file is missing, is not YAML, or is not a mapping.
    """
    try:
        with path.open(encoding="utf-8") as file:
            loaded = yaml.load(file, _StrictLoader)  # noqa: S506, TID251 - a SafeLoader
    except OSError as error:
        what = f"the settings file cannot be read: {error.strerror}"
        raise SettingError(what, where=path) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        what = f"the settings file is not valid YAML: {error}"
        raise SettingError(what, where=path) from error
    if not isinstance(loaded, dict):
        raise SettingError("the settings file has no `name: value` lines", where=path)
    return {str(name).replace("-", "_"): value for name, value in loaded.items()}


def settings_yaml(settings: Mapping[str, Any]) -> str:
    """Return settings as YAML text, which `read_settings` can read."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
