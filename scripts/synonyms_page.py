"""Write the tables of docs/synonyms.md from the table of synonyms."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from striate.cli.main import build_parser
from striate.cli.synonyms import all_commands, flag_names
from striate.core.synonym_table import COMMANDS, SYNONYMS, UNAVAILABLE, Synonym

PAGE = Path(__file__).parents[1] / "docs" / "synonyms.md"


def flag_table() -> str:
    """Return the table of flags; flags without counterpart come last."""
    rows = sorted(SYNONYMS, key=lambda synonym: not synonym.targets)
    body = [_flag_row(synonym) for synonym in rows]
    return "\n".join(["| other tools | striate | remark |", "|---|---|---|", *body])


def _flag_row(synonym: Synonym) -> str:
    names = ", ".join(f"`{_flag(name)}`" for name in synonym.names.split())
    targets = [_target(name, synonym.value) for name in synonym.targets.split()]
    remark = synonym.note or synonym.absent
    return f"| {names} | {' or '.join(targets) or '–'} | {remark} |"


def _flag(name: str) -> str:
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def _target(name: str, value: str) -> str:
    flags: dict[str, str] = {}
    for parser in all_commands(build_parser()).values():
        flags |= flag_names(parser)
    return f"`{flags.get(name, name)} {value}".strip() + "`"


def command_table() -> str:
    """Return the table of commands; commands that do not exist yet come last."""
    pairs = sorted(COMMANDS.items(), key=lambda pair: pair[1])
    rows = [
        f"| {', '.join(f'`{word}`' for word, _ in group)} | `striate {command}` |"
        for command, group in groupby(pairs, key=lambda pair: pair[1])
    ]
    missing = ", ".join(f"`{word}`" for word in UNAVAILABLE)
    rows.append(f"| {missing} | not available yet |")
    return "\n".join(["| other tools | striate |", "|---|---|", *rows])


def page_text(text: str) -> str:
    """Return the text of the page with new tables."""
    for name, table in (("commands", command_table()), ("flags", flag_table())):
        mark = f"<!-- {name}: written by scripts/synonyms_page.py -->"
        before, rest = text.split(mark)
        text = f"{before}{mark}\n\n{table}\n\n{rest[rest.index('<!-- end -->') :]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
