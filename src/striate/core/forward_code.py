"""Find the variables of a file that the code of a network's class can reach.

A forward pass may keep a cache in a global variable of its file. The names in the
compiled code tell which variables it uses, so that all others are left alone.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

_STORE_GLOBAL = dis.opmap["STORE_GLOBAL"]
# These only run when a network is built, printed or saved.
_NOT_IN_FORWARD = frozenset(
    ["__init__", "__new__", "__repr__", "extra_repr", "__init_subclass__"]
)


class UsedNames(NamedTuple):
    """Names in the code of a function: all, and the global variables that it sets."""

    read: frozenset[str]
    assigned: frozenset[str]


@cache
def used_names(code: CodeType) -> UsedNames:
    """Return the names that a code object and the functions inside it use.

    Example:
        >>> sorted(used_names((lambda x: abs(x.real)).__code__).read)
        ['abs', 'real']
    """
    read, assigned = set(code.co_names), set()
    if _STORE_GLOBAL in code.co_code[::2]:
        instructions = dis.get_instructions(code)
        assigned = {i.argval for i in instructions if i.opname == "STORE_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = used_names(constant)
            read |= inner.read
            assigned |= inner.assigned
    return UsedNames(frozenset(read), frozenset(assigned))


def forward_functions(cls: type) -> Iterator[FunctionType]:
    """Yield the functions that a class itself defines, without those that build it.

    Example:
        >>> class Net:
        ...     def __init__(self): pass
        ...     def forward(self, x): return x
        >>> [function.__name__ for function in forward_functions(Net)]
        ['forward']
    """
    for name, value in vars(cls).items():
        function = plain_function(value)
        if isinstance(function, FunctionType) and name not in _NOT_IN_FORWARD:
            yield function


def plain_function(value: Any) -> Any:
    """Return the function inside a static method, class method or property."""
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def used_globals(
    function: FunctionType, package: str
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (variables of a file, name) for each global variable of a function.

    In a file that the function's file imports as a module, only the files of `package`
    are looked at.
    """
    space, names = function.__globals__, used_names(function.__code__)
    for name in names.read | names.assigned:
        if name not in space:
            continue
        yield space, name
        value = space[name]
        if isinstance(value, ModuleType) and root_package(value.__name__) == package:
            for inner in names.read & vars(value).keys():
                yield vars(value), inner


def root_package(module: str) -> str:
    """Return the first part of a module's dotted name.

    Example:
        >>> root_package("timm.layers.norm")
        'timm'
    """
    return module.partition(".")[0]
