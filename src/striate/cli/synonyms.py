"""Check the words of a command line, and answer those of other tools.

An unknown flag or command is an error. If it is known from another library, the error
names the flag of striate, and shows the whole corrected command if there is one.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from striate.core.errors import SettingError
from striate.core.registry import closest_names
from striate.core.synonym_table import COMMANDS, UNAVAILABLE, Synonym
from striate.core.synonyms import plain_name, synonym_of
from striate.run.parse_settings import setting_types

Parser = argparse.ArgumentParser
NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e-?\d+)?", re.IGNORECASE)
MAX_COMMANDS = 4  # commands listed that have a flag
HELP = ("-h", "--help", "--help-all")
# A run is a folder; files of these types are weights.
WEIGHTS_FILES = (".pt", ".pth", ".ckpt", ".safetensors", ".h5", ".keras", ".onnx")
VALUES = {None: 1, 0: 0, "?": 1}  # values that a flag or an argument takes at most


def check_words(parser: Parser, arguments: Sequence[str]) -> None:
    """Check a command line for unknown commands, flags and arguments.

    Raises:
        SettingError: A word is unknown; the message names what to write instead.
    """
    words = list(arguments)
    if not words or set(words) & set(HELP):
        return
    if _is_flag(words[0]):
        if words[0] not in parser._option_string_actions:
            _flag_before_command(parser, words)
        return
    line = _Line(parser)
    words = line.read_verb(words)
    if line.verb and not subcommands(line.parser):
        line.read(words)
        line.check()


def subcommands(parser: Parser) -> Mapping[str, Parser]:
    """Return the parsers of the commands below a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices: Mapping[str, Parser] = action.choices
            return choices
    return {}


def all_commands(parser: Parser) -> dict[str, Parser]:
    """Return the parsers of all commands by name, such as `data check`."""
    result: dict[str, Parser] = {}
    for name, child in subcommands(parser).items():
        result[name] = child
        result |= {f"{name} {sub}": p for sub, p in all_commands(child).items()}
    return result


def flag_names(parser: Parser) -> dict[str, str]:
    """Return the flags of a command by their plain name, such as `batch_size`."""
    flags = [f for a in parser._actions for f in a.option_strings if f not in HELP]
    return {plain_name(flag): flag for flag in flags}


def argument_names(parser: Parser) -> list[str]:
    """Return the names of the arguments without flag, such as DATA."""
    return [str(a.metavar or a.dest) for a in _arguments(parser)]


def _arguments(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _is_flag(word: str) -> bool:
    """Return whether a word is a flag: `-` is a file, `-1` a number."""
    is_dash = word.startswith(("-", "—", "–")) and len(word) > 1
    return is_dash and " " not in word and not NUMBER.fullmatch(word)


def _flag_before_command(parser: Parser, words: list[str]) -> NoReturn:
    """Raise the error for a flag before the command."""
    verbs = [i for i, word in enumerate(words) if word in subcommands(parser)]
    what = f"flags come after the command: {words[0]}"
    if not verbs:
        raise SettingError(f"unknown flag {words[0]}", fix=f"see {parser.prog} --help")
    i = verbs[0]
    moved = shlex.join([parser.prog, words[i], *words[i + 1 :], *words[:i]])
    raise SettingError(what, fix=f"run: {moved}")


@dataclass
class _Line:
    """A command line while it is read: known words, and answers to the others."""

    parser: Parser  # of the command that was read so far
    verb: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    # Arguments that were given by a flag of another tool.
    by_flag: dict[str, str] = field(default_factory=dict)
    flags: list[list[str]] = field(default_factory=list)  # each with its values
    answers: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    complete: bool = True  # whether the corrected command can be shown

    def __post_init__(self) -> None:
        self.top = self.parser

    # --- the command

    def read_verb(self, words: list[str]) -> list[str]:
        """Read the command, and return the words that follow it."""
        while words and (choices := subcommands(self.parser)):
            word, *rest = words
            if word not in choices:
                if action := self.parser._option_string_actions.get(word):
                    count = 0 if action.nargs == 0 else 1  # `data --json check`
                    self._add(word, rest[:count])
                    words = rest[count:]
                    continue
                rest = [*self._known_command(word, choices, rest).split(), *rest]
                if _is_flag(rest[0]):
                    self._refuse(f"run: {self.top.prog} {rest[0]}")
                word, *rest = rest
            self.verb.append(word)
            self.parser, words = choices[word], rest
        return words

    def _known_command(
        self, word: str, choices: Mapping[str, Parser], rest: list[str]
    ) -> str:
        """Return the command of striate for a command of another tool."""
        name = word.lower()
        prefix = " ".join([*self.verb, ""])
        if name in UNAVAILABLE and not self.verb:
            what = f"`{self.top.prog} {word}` is not available yet"
            raise SettingError(what, fix=UNAVAILABLE[name])
        command = COMMANDS.get(name, "")
        if command.startswith(prefix) and command:
            self.answers.append(f"the command {word} is {command} here")
            return command.removeprefix(prefix)
        close = closest_names(name, choices)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        kind = "flag" if _is_flag(word) else "command"
        what = f"unknown {kind} '{prefix}{word}'"
        if "check" in choices and Path(word).exists():
            hint = f"run: {self.top.prog} {shlex.join([*self.verb, 'check', word])}; "
        if "convert" in choices and Path(word).exists():
            hint = f"run: {self.top.prog} {shlex.join([*self.verb, 'convert', word])} "
            hint += "OUT; "
        raise SettingError(what, fix=f"{hint}commands: {', '.join(choices)}")

    # --- flags and arguments

    def read(self, words: Sequence[str]) -> None:
        """Read the words after the command: flags, their values and arguments."""
        rest, options = list(words), self.parser._option_string_actions
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if word == "--":
                self.arguments += rest
                return
            if not _is_flag(word):
                if equals and self._means_flag(name) and not Path(word).exists():
                    self._unknown(word, name, [value])
                else:
                    self.arguments.append(word)
            elif name not in options:
                rest = self._unknown(name, name, [value, *rest] if equals else rest)
            elif equals:
                self._add(name, [value])
            else:
                count = _count(options[name], rest)
                self._add(name, rest[:count])
                rest = rest[count:]

    def _add(self, flag: str, values: list[str]) -> None:
        if flag != "--freeze" and any(flag == given for given, *_ in self.flags):
            self.complete = False  # which of the two is meant?
        self.flags.append([flag, *values])

    def _means_flag(self, name: str) -> bool:
        return plain_name(name) in flag_names(self.parser) or bool(synonym_of(name))

    def _unknown(self, word: str, name: str, rest: list[str]) -> list[str]:
        """Answer an unknown flag; return the words after the flag and its value."""
        own, plain = flag_names(self.parser), plain_name(name)
        synonym = synonym_of(name) or Synonym(plain, plain)
        if plain in own:
            synonym = Synonym(plain, plain)
        target = synonym.target_in([*own, *argument_names(self.parser)])
        if target:
            return self._replace(word, synonym, target, rest)
        if synonym.targets:
            return self._other_command(word, synonym, rest)
        self.answers.append(f"striate has no {word}: {synonym.note}")
        return self._skip_value(rest)

    def _skip_value(self, rest: list[str]) -> list[str]:
        """Return the words after the value of an unknown flag, if it is clear."""
        if rest and _is_plain_value(rest[0]):
            return rest[1:]
        if rest and not _is_flag(rest[0]):
            self.complete = False  # is it the value of the flag, or an argument?
        return rest

    def _replace(
        self, word: str, synonym: Synonym, target: str, rest: list[str]
    ) -> list[str]:
        """Put the flag or argument of striate in place of a flag of another tool."""
        flag = flag_names(self.parser).get(target, target)
        action = self.parser._option_string_actions.get(flag)
        values = [synonym.value] if synonym.value else []
        switch = action is not None and action.nargs == 0
        self.answers.append(_replacement(word, flag, synonym))
        if values or switch:
            if rest and _is_plain_value(rest[0]):
                off = rest.pop(0).lower() == "false"
                if off:
                    return rest
            self._add(flag, values)
        elif not rest or _is_flag(rest[0]) or not rest[0]:
            self.complete = False
        elif action is None:
            value = rest.pop(0)
            is_weights = flag == "RUN" and value.endswith(WEIGHTS_FILES)
            self.by_flag[flag] = "RUN" if is_weights else value
        elif plain_name(word) in ("name", "project"):
            self._add_folder(word, flag, rest.pop(0))
        else:
            self._add(flag, [rest.pop(0)])
        return rest

    def _add_folder(self, word: str, flag: str, name: str) -> None:
        """Add the run folder; of `--project` and `--name` it is PROJECT/NAME."""
        folders = [values for own, *values in self.flags if own == flag]
        if not folders:
            self._add(flag, [name])
            return
        is_project = plain_name(word) == "project"
        pair = [name, *folders[0]] if is_project else [*folders[0], name]
        self.flags[self.flags.index([flag, *folders[0]])] = [flag, "/".join(pair)]

    def _other_command(self, word: str, synonym: Synonym, rest: list[str]) -> list[str]:
        """Answer a flag that this command does not have."""
        commands = all_commands(self.top)
        homes = {
            name: flag_names(p)[target]
            for name, p in commands.items()
            if (target := synonym.target_in(flag_names(p)))
        }
        answer = f"`{self.parser.prog}` has no flag {word}"
        if not homes:
            self.answers.append(answer)
            return self._suggest(word, rest)
        flag = next(iter(homes.values()))
        own = plain_name(word) == plain_name(flag)
        answer += "" if own else f", and no {flag}"
        if synonym.absent:
            self.answers.append(f"{answer}: {synonym.absent}")
            return self._skip_value(rest)
        self.complete = False
        if self._takes_run() and synonym.target_in(setting_types()):
            answer += "; it uses the settings of the run"
        else:
            more = ", …" if len(homes) > MAX_COMMANDS else ""
            listed = ", ".join(list(homes)[:MAX_COMMANDS])
            answer += f"; {flag} is a flag of {listed}{more}"
        self.answers.append(answer)
        return self._skip_value(rest)

    def _takes_run(self) -> bool:
        return "RUN" in argument_names(self.parser)

    def _suggest(self, word: str, rest: list[str]) -> list[str]:
        """Suggest the flags that a misspelled flag can mean."""
        own, name = flag_names(self.parser), plain_name(word)
        begin = [key for key in own if len(name) > 1 and key.startswith(name)]
        close = closest_names(name, own) or (begin if len(begin) == 1 else [])
        if close:
            self.hints.append(" or ".join(own[key] for key in close))
        if len(close) != 1:
            self.complete = False
            return self._skip_value(rest)
        *self.answers, answer = self.answers
        rest = self._replace(word, Synonym(name, close[0]), close[0], rest)
        self.answers[-1] = answer
        return rest

    # --- the answer

    def check(self) -> None:
        """Raise an error if a word was unknown or superfluous."""
        most = sum(VALUES.get(a.nargs, 10**9) for a in _arguments(self.parser))
        extra = self.arguments[max(0, most - len(self.by_flag)) :]
        while extra and extra[0] in flag_names(self.parser):
            self.arguments = self.arguments[: -len(extra)]
            flag = extra.pop(0)
            extra = self._unknown(flag, flag, extra)
            self.arguments += extra
        if self.answers:
            self._refuse(self._command())
        if extra:
            self._superfluous(extra)

    def _superfluous(self, extra: list[str]) -> NoReturn:
        joined = " ".join(self.arguments)
        fix = f"see {self.parser.prog} --help; a path with spaces needs quotes"
        if Path(joined).exists():
            command = shlex.join([self.top.prog, *self.verb, joined])
            fix = f"a path with spaces needs quotes: {command}"
        raise SettingError(f"unexpected argument '{extra[0]}'", fix=fix)

    def _command(self) -> str:
        """Return the corrected command as a remedy, or the command for the help."""
        names = argument_names(self.parser)
        given = iter(self.arguments)
        before = [self.by_flag.get(name) or next(given, None) for name in names]
        arguments = [word for word in before if word is not None] + list(given)
        flags = [word for flag in self.flags for word in flag]
        words = [*self.verb, *arguments, *flags]
        if self.complete and _is_valid(self.top, words):
            return f"run: {shlex.join([self.top.prog, *words])}"
        return f"see {self.parser.prog} --help"

    def _refuse(self, fix: str) -> NoReturn:
        hint = f"did you mean {' and '.join(self.hints)}? " if self.hints else ""
        raise SettingError("; ".join(self.answers), fix=f"{hint}{fix}")


def _replacement(word: str, flag: str, synonym: Synonym) -> str:
    """Return the sentence that names the flag or argument of striate."""
    note = synonym.note
    if flag == "RUN":
        note = "the run folder or its name"
    shown = f"{flag} {synonym.value}".strip()
    answer = f"{word} is {shown} here"
    if not flag.startswith("-"):
        answer = f"{word} is the argument {flag} here, without a flag"
    return answer + (f" ({note})" if note else "")


def _count(action: argparse.Action, rest: Sequence[str]) -> int:
    """Return the number of words that are values of a flag."""
    values = next((i for i, word in enumerate(rest) if _is_flag(word)), len(rest))
    return min(values, VALUES.get(action.nargs, values))


def _is_plain_value(word: str) -> bool:
    """Return whether a word is a number, true or false, and so not an argument."""
    return bool(NUMBER.fullmatch(word)) or word.lower() in ("true", "false")


def _is_valid(parser: Parser, words: Sequence[str]) -> bool:
    try:
        parser.parse_args(words)
    except SettingError:
        return False
    return True
