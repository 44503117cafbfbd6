"""A user's own network in a Python file: `net.py`, `net.py:Net` or `net.py:Net(3)`.

The file is executed, because the user names it. Everything that the code changes in the
process is restored: working directory, import path, stdout and random states.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from striate.audit.meta_device import init_empty_weights
from striate.core.errors import SettingError, StriateError
from striate.core.files import hash_rows

FILE = re.compile(r"(?P<path>.+?\.py)(?::(?P<expression>.*))?")
MODULE_PREFIX = "_striate_target_"
_executed: dict[Path, dict[str, bytes]] = {}  # code by path, as it was executed
# Names of parameters that receive a value, in the order of preference.
PARAMETERS = {
    "image_size": ("image_size", "img_size", "input_size"),
    "in_chans": ("in_chans", "in_channels", "n_channels", "input_channels"),
    "num_classes": ("num_classes", "n_classes", "nb_classes", "num_class", "classes"),
}


def is_python_network(name: str) -> bool:
    """Return whether the name of a network is a Python file, with or without a class.

    Example:
        >>> is_python_network("net.py"), is_python_network("nets/net.py:Net(3)")
        (True, True)
        >>> is_python_network("resnet18")
        False
    """
    return FILE.fullmatch(name) is not None


def split_python_name(name: str) -> tuple[Path, str]:
    """Return the path and the expression of a name such as `net.py:Net(depth=3)`.

    Example:
        >>> split_python_name("net.py:Net(3)")[1], split_python_name("net.py")[1]
        ('Net(3)', '')
    """
    match = FILE.fullmatch(name)
    assert match is not None  # noqa: S101 - see `is_python_network`
    return Path(match["path"]).expanduser(), match["expression"] or ""


@dataclass(frozen=True, kw_only=True)
class PythonNetwork:
    """A class, a function or an object in a Python file that is or makes a network."""

    path: Path
    expression: str  # such as `Net` or `Net(depth=3)`
    make: Any = field(repr=False)  # a class, a function, or a network
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def build(self, settings: Mapping[str, Any]) -> nn.Module:
        """Build the network; pass the settings that its parameters accept.

        Args:
            settings: `num_classes`, `in_chans` and `image_size`; None is not passed.

        Raises:
            SettingError: The code fails, needs an argument, or returns no network.
        """
        with user_code(self.path):
            model = self._call(settings)
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            what = f"{self.expression} returned a {kind}, not an nn.Module"
            fix = "give a class or a function that returns a network"
            raise SettingError(what, where=self.path, fix=fix)
        return model

    def build_empty(self, settings: Mapping[str, Any]) -> nn.Module:
        """Build the network, if possible without allocating memory for the weights."""
        try:
            with init_empty_weights():
                return self.build(settings)
        except SettingError as error:
            if not isinstance(error.__cause__, RuntimeError | NotImplementedError):
                raise
            return self.build(settings)

    def _call(self, settings: Mapping[str, Any]) -> Any:
        if isinstance(self.make, nn.Module):  # the file has built it
            return self.make
        return self.make(*self.args, **self._keywords(settings))

    def _keywords(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments: those of the user, and accepted settings."""
        parameters = dict(inspect.signature(self.make).parameters)
        free = [*parameters][len(self.args) :]
        accepted = dict(self.kwargs)
        for setting, value in settings.items():
            names = [name for name in PARAMETERS[setting] if name in parameters]
            if value is not None and names and names[0] in free:
                accepted.setdefault(names[0], value)
        missing = [
            name
            for name in free
            if parameters[name].default is inspect.Parameter.empty
            and parameters[name].kind
            not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            and name not in accepted
        ]
        if missing:
            word = self.expression.partition("(")[0]
            what = f"{word} needs the argument{'s' * (len(missing) > 1)} "
            values = ", ".join(f"{name}=…" for name in missing)
            fix = f"write the values: {self.path.name}:{word}({values}), or give them "
            fix += "defaults in the file"
            raise SettingError(what + ", ".join(missing), where=self.path, fix=fix)
        return accepted


def load_python_network(name: str) -> PythonNetwork:
    """Execute a Python file and return the network that its name selects.

    Without an expression, the file must define exactly one `nn.Module` class. If it
    defines no class, it must define exactly one network object, or one function.

    Raises:
        SettingError: The file does not exist, its code fails, or the class is missing
            or not unique; the message lists the classes.
    """
    path, expression = split_python_name(name)
    word, args, kwargs = _parse(path, expression) if expression else ("", (), {})
    module = _execute(path)
    word = word or _only_network(path, module)
    if not hasattr(module, word):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        what = f"the file does not define '{word}'"
        fix = f"use one of its Python classes: {', '.join(sorted(classes))}"
        raise SettingError(what, where=path, fix=fix)
    make = getattr(module, word)
    if not callable(make):
        what = f"'{expression}' is a {type(make).__name__}, which is not callable"
        raise SettingError(what, where=path, fix="give a class or a function")
    if isinstance(make, nn.Module) and expression not in ("", word):
        what = f"'{word}' is a network already, so it cannot be called"
        raise SettingError(what, where=path, fix=f"write {path.name}:{word}")
    return PythonNetwork(
        path=path, expression=expression or word, make=make, args=args, kwargs=kwargs
    )


def _parse(
    path: Path, expression: str
) -> tuple[str, tuple[Any, ...], Mapping[str, Any]]:
    """Return the name and the literal arguments of `Net` or `Net(depth=3)`."""
    try:
        call = ast.parse(expression, mode="eval").body
        name = call.func if isinstance(call, ast.Call) else call
        if not isinstance(name, ast.Name):
            raise SyntaxError
        if not isinstance(call, ast.Call):
            return name.id, (), {}
        args = tuple(ast.literal_eval(arg) for arg in call.args)
        kwargs = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except (SyntaxError, ValueError) as error:
        what = f"'{expression}' is not the name or the call of a class"
        fix = "write file.py:Class or file.py:Class(depth=3) with literal values"
        raise SettingError(what, where=path, fix=fix) from error
    return name.id, args, kwargs


def _only_network(path: Path, module: ModuleType) -> str:
    """Return the name of the only network class of a file, or of its only function."""
    own = {
        key: value
        for key, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and key[0] != "_"
    }
    classes = [
        key
        for key, value in own.items()
        if inspect.isclass(value) and issubclass(value, nn.Module)
    ]
    objects = [key for key, v in vars(module).items() if isinstance(v, nn.Module)]
    functions = [key for key, value in own.items() if inspect.isfunction(value)]
    networks = classes or objects or functions
    if len(networks) == 1:
        return networks[0]
    if not networks:
        what = "the file defines no nn.Module class and no function"
        fix = "define a class that inherits from torch.nn.Module, or name an imported "
        fix += f"one: {path.name}:CLASS"
        raise SettingError(what, where=path, fix=fix)
    kind = "nn.Module classes" if classes else "networks" if objects else "functions"
    what = f"the file defines {len(networks)} {kind}: {', '.join(networks)}"
    fix = f"name the network: {path.name}:{networks[-1]}"
    raise SettingError(what, where=path, fix=fix)


def _execute(path: Path) -> ModuleType:
    """Execute a Python file as a module with an unusual name, and return the module."""
    if not path.is_file():
        raise SettingError("the file does not exist", where=path, fix="check the path")
    # The name does not shadow an import of the file.
    name = f"{MODULE_PREFIX}{path.stem}_{hash_rows([str(path.resolve())])[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 - the name ends in .py
    module = importlib.util.module_from_spec(spec)
    # The module stays in sys.modules: dataclasses, type hints and pickles look up the
    # module of a class while the file runs and when the network is built or copied.
    sys.modules[name] = module
    files = _executed[path.resolve()] = network_files(path)
    try:
        with user_code(path), _own_imports(path):
            code = compile(files[path.name], str(path), "exec", dont_inherit=True)
            exec(code, vars(module))  # noqa: S102 - the user has named the file
    except StriateError:
        del sys.modules[name]
        raise
    return module


def network_files(path: Path) -> dict[str, bytes]:
    """Return the code of a network by relative path: a Python file and its neighbors.

    The neighbors are the modules beside the file that it imports.
    """
    files = [path]
    for place in local_imports(path).values():
        files += [place] if place.is_file() else sorted(place.rglob("*.py"))
    return {
        file.relative_to(path.parent).as_posix(): file.read_bytes() for file in files
    }


def executed_files(path: Path) -> dict[str, bytes]:
    """Return the code of a network as it was when this process last executed it.

    A user may edit the file while the images are read.
    """
    return _executed.get(path.resolve()) or network_files(path)


@contextmanager
def _own_imports(path: Path) -> Iterator[None]:
    """Context manager: a file imports its neighbors, not modules of the same names."""
    names = local_imports(path)
    loaded = [module for module in sys.modules if module.partition(".")[0] in names]
    others = {module: sys.modules.pop(module) for module in loaded}
    try:
        yield
    finally:
        sys.modules.update(others)


def local_imports(path: Path) -> dict[str, Path]:
    """Return the modules beside a Python file that it imports, also indirectly.

    Returns a dict from module name to its file, or to its folder for a package.
    """
    modules: dict[str, Path] = {}
    pending = [path]
    while pending:
        for name in _imported_names(pending.pop()):
            place = path.parent / name
            place = place if place.is_dir() else place.with_suffix(".py")
            is_own = place.is_file() or (place / "__init__.py").is_file()
            if name in modules or not is_own or _is_library(name, path.parent):
                continue
            modules[name] = place
            pending += [place] if place.is_file() else sorted(place.rglob("*.py"))
    return modules


def _is_library(name: str, folder: Path) -> bool:
    """Return whether a name is loaded as a module that is not in a folder."""
    if name in sys.stdlib_module_names or name in ("striate", "torch"):
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and "site-packages" in Path(file).parts


def _imported_names(path: Path) -> set[str]:
    """Return the top-level names of all modules that a Python file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()  # its execution will say why
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@contextmanager
def user_code(path: Path) -> Iterator[None]:
    """Context manager for the code of a user's file: restore all that it changes.

    What the code prints goes to stderr, so that it does not mix with JSON.

    Raises:
        SettingError: The code failed; the message has the line in the file.
    """
    folder, search_path = Path.cwd(), list(sys.path)
    states = random.getstate(), np.random.get_state()
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    bytecode = sys.dont_write_bytecode, sys.pycache_prefix
    sys.path.insert(0, str(path.parent.resolve()))
    with tempfile.TemporaryDirectory() as empty, redirect_stdout(sys.stderr):
        # No bytecode is written beside the file, and none is read there.
        sys.dont_write_bytecode, sys.pycache_prefix = True, empty
        try:
            yield
        except StriateError:
            raise
        except (Exception, SystemExit) as error:  # foreign code may raise anything
            raise _user_code_error(path, error) from error
        finally:
            sys.dont_write_bytecode, sys.pycache_prefix = bytecode
            sys.path[:] = search_path
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(gradients)
            _restore_folder(path, folder)


def _restore_folder(path: Path, folder: Path) -> None:
    """Change back to the working directory, with a note if the code has changed it."""
    try:
        if Path.cwd() == folder:
            return
        changed = f"to {Path.cwd()}"
    except OSError:  # the code has removed the folder
        changed = "and removed it"
    os.chdir(folder)
    text = f"note: {path.name} changed the working directory {changed}"
    print(f"{text}; it is {folder} again", file=sys.stderr)


def _user_code_error(path: Path, error: BaseException) -> SettingError:
    trace = error.__traceback__
    line = getattr(error, "lineno", 0) if isinstance(error, SyntaxError) else 0
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == path.name:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f"{path}, line {line}" if line else path
    if isinstance(error, SystemExit):
        what = f"the code of the file ended the program: sys.exit({error.code!r})"
        fix = "move code that is no definition below: if __name__ == '__main__':"
        return SettingError(what, where=where, fix=fix)
    what = f"the code of the file failed: {type(error).__name__}: {error}"
    fix = "correct the code"
    if isinstance(error, ModuleNotFoundError):
        fix = f"install the package {error.name}, or put the module beside the file"
    return SettingError(what, where=where, fix=fix)
