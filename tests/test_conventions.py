"""Conventions of the code: sizes, names, file tree, exports, flags, imports."""

from __future__ import annotations

import argparse
import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import ModuleType

import pytest

import striate
from striate.cli.main import build_parser

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "striate"
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
BANNED_NAMES = {"utils", "util", "common", "helpers", "misc", "base"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


@cache
def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in nodes_of(path) if isinstance(node, ast.FunctionDef)]


@pytest.fixture(scope="module", autouse=True)
def _trees_are_let_go():
    """They are large, and only these tests read them."""
    yield
    for function in (tree_of, nodes_of, functions):
        function.cache_clear()


def code_lines(function: ast.FunctionDef) -> int:
    """Count a function's lines without its docstring."""
    total = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    return total - ((first.end_lineno or 0) - first.lineno + 1) * documented


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_over_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_files_and_functions_are_short():
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in FILES]
    bodies = [code_lines(f) for path in FILES for f in functions(path)]
    assert median(lines) <= 150
    assert median(bodies) <= 9
    longest = {
        f"{path.name}:{f.name}": code_lines(f)
        for path in FILES
        for f in functions(path)
    }
    assert {name: n for name, n in longest.items() if n > 60} == {}


def parameters(function: ast.FunctionDef) -> list[str]:
    """Return the names of a function's parameters, without self and cls."""
    own = function.args
    every = [*own.posonlyargs, *own.args, *own.kwonlyargs]
    return [each.arg for each in every if each.arg not in ("self", "cls")]


def test_functions_have_at_most_eight_parameters():
    counts = {
        f"{path.name}:{f.name}": len(parameters(f))
        for path in FILES
        for f in functions(path)
    }
    assert {name: n for name, n in counts.items() if n > 8} == {}


def packed_and_unpacked(function: ast.FunctionDef) -> list[str]:
    """Return the tuples that a function packs only to unpack them into a call."""
    nodes = list(ast.walk(function))
    packed = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    own = [n for n in nodes if isinstance(n, ast.Call) and not _is_library(n)]
    stars = [a for n in own for a in n.args if isinstance(a, ast.Starred)]
    names = [star.value.id for star in stars if isinstance(star.value, ast.Name)]
    return [name for name in names if name in packed]


def _is_library(call: ast.Call) -> bool:
    """Return whether a call takes any number of arguments, such as `zip`."""
    if any(keyword.arg is None for keyword in call.keywords):
        return True  # passes on what it was called with
    text = ast.unparse(call.func)
    return text.split(".")[-1] in ("zip", "view", "new_empty", "Sequential")


def test_arguments_are_not_packed_to_be_unpacked():
    found = {
        f"{path.name}:{f.name}": names
        for path in FILES
        for f in functions(path)
        if (names := packed_and_unpacked(f))
    }
    assert found == {}


def statements(function: ast.FunctionDef) -> list[str]:
    """Return a function's statements without its docstring and its imports."""
    rest = function.body[ast.get_docstring(function) is not None :]
    return [ast.dump(node) for node in rest if not isinstance(node, ast.ImportFrom)]


def test_no_function_is_defined_twice():
    """Of two copies only one gets mended; methods may be alike."""
    bodies = {}
    for path in FILES:
        tree = tree_of(path)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and code_lines(node) > 3:
                key = node.name, *statements(node)
                bodies.setdefault(key, []).append(str(path.relative_to(PACKAGE)))
    assert [(key[0], files) for key, files in bodies.items() if files[1:]] == []


# Nouns that messages count.
NOUNS = (
    *("images", "files", "classes", "labels", "groups", "pairs", "runs", "seeds"),
    *("epochs", "steps", "batches", "processes", "threads", "parameters", "channels"),
    *("filters", "layers", "values", "tests", "features", "shards", "findings"),
    *("duplicates", "warnings", "settings", "columns", "rows", "terms", "networks"),
)
COUNTED = re.compile(
    r"^ (?:(?:training|test|validation|new|more|other|smaller) )?"
    rf"(?:{'|'.join(NOUNS)})\b"
)
# Counts that are never 1, and texts that are no counts.
NEVER_ONE = frozenset(
    [
        "advice_cost.py: after parameters",
        "advice_cost.py: total - count parameters",
        "advice_geometry.py: fewer parameters",
        "build_from_recipe.py: share images",
        "build_from_recipe.py: size + 1 images",
        "channel_selectivity.py: patches.name images",
        "class_labels.py: count labels",
        "decode.py: frames images",
        "deep_chain.py: self.depth layers",
        "duplicate_findings.py: images images",
        "filters_and_maps.py: shown layers",
        "findings.py: depth layers",
        "findings.py: forecast.images images",
        "findings.py: last.images images",
        "findings.py: others images",
        "label_errors.py: arrays.shape[-1] channels",
        "layer_arithmetic.py: sides values",
        "next_steps.py: forecast.images training images",
        "outliers.py: len(members) images",
        "page.py: total images",
        "prepare_run.py: size images",
        "progress.py: self._rate.images images",
        "ranks.py: rank runs",
        "report_page.py: manifest['images_per_second'] images",
        "resnet.py: depth layers",
        "selection.py: has images",
        "similar_classes.py: similar.images images",
        "source.py: names images",
        "split_checks.py: len(rows) files",
        "tables.py: rest images",
        "tables.py: target images",
        "verdict_facts.py: word images",
        "verdict_rules.py: SPLIT_WORDS[facts.reference_split] images",
        "verdict_rules.py: len(facts.classes) classes",
        "verdict_rules.py: quantity classes",
        "vgg.py: _depth layers",
    ]
)


def plural_of_a_count(path: Path) -> Iterator[str]:
    """Yield the counts whose noun is always plural, as in `1 images`."""
    for node in nodes_of(path):
        values = node.values if isinstance(node, ast.JoinedStr) else []
        for value, text in pairwise(values):
            if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                count = ast.unparse(value.value)
                is_constant = re.fullmatch(r"[A-Z_0-9 /*]+", count)
                noun = COUNTED.match(str(text.value))
                if noun and not is_constant:
                    yield f"{path.name}: {count}{noun[0]}"


def test_counts_agree_with_their_nouns():
    """A count goes through `count_text`, which knows `1 image`."""
    found = {text for path in FILES for text in plural_of_a_count(path)}
    assert found == NEVER_ONE


def test_no_file_hides_behind_a_vague_name():
    assert [path for path in FILES if path.stem in BANNED_NAMES] == []


# Pronouns, participles and adjectives say nothing about the thing that they name.
BANNED_IDENTIFIERS = frozenset(
    [
        "found",
        "one",
        "said",
        "told",
        "seen",
        "kept",
        "mine",
        "theirs",
        "how",
        "wish",
        "held",
        "judged",
        "chosen",
        "wanted",
        "asked",
        "learnt",
        "odds",
        "whoever",
        "nought",
        "alike",
        "sooner",
    ]
)
# In the first line of a docstring the field has a better word.
BANNED_WORDS = re.compile(
    r"\b(pictures?|odds|judge[sd]?|whoever|nought|alike|sooner|learnt|foretells?|dealt|"
    r"told|said|wish|wished|colou?rs? of|grey|normalis\w+|optimis\w+)\b",
    re.IGNORECASE,
)
LONGEST_SENTENCE = 25  # words


def identifiers(path: Path) -> Iterator[str]:
    """Yield every identifier that a file defines."""
    for node in nodes_of(path):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


@pytest.mark.parametrize("folder", FOLDERS)
def test_identifiers_name_things(folder):
    banned = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in (PACKAGE / folder).rglob("*.py")
        for name in identifiers(path)
        if name.strip("_").lower() in BANNED_IDENTIFIERS
        or "odds" in name.lower().split("_")
    }
    assert banned == set()


def test_public_names_are_unique():
    """A name that is searched for is found once."""
    homes = defaultdict(list)
    for path in FILES:
        for node in tree_of(path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in homes.items() if files[1:]} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_begin_with_plain_words(folder):
    bad = []
    for path in (PACKAGE / folder).rglob("*.py"):
        for node in nodes_of(path):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            line = (ast.get_docstring(node) or "").partition("\n")[0]
            if BANNED_WORDS.search(line) or len(line.split()) > LONGEST_SENTENCE:
                bad.append(f"{path.relative_to(PACKAGE)}: {line}")
    assert bad == []


VERBS = sorted(
    path.name
    for path in (PACKAGE / "workflows").iterdir()
    if (path / "__init__.py").is_file()
)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_one_name_everywhere(verb):
    assert (PACKAGE / "cli" / f"{verb}.py").is_file()
    assert (ROOT / "docs" / f"{verb}.md").is_file()
    assert list((ROOT / "tests" / "workflows" / verb).glob("test_*.py"))


def test_public_names_survive_the_import_of_every_module():
    """A subpackage `striate.train` would hide the function `striate.train`."""
    for module in pkgutil.walk_packages(striate.__path__, "striate."):
        if not module.name.endswith(("__main__", "sandbox_worker", ".timm")):
            importlib.import_module(module.name)
    for name in striate.__all__:
        assert not isinstance(getattr(striate, name), ModuleType)


def test_every_file_says_what_it_is():
    silent = [p for p in FILES if not ast.get_docstring(tree_of(p))]
    assert silent == []


def test_one_foreign_library_one_file():
    """Pillow, simplejpeg, matplotlib and yaml each have one home (Pillow two)."""
    homes = {
        "PIL": {
            "data/decode/decode.py",
            "interpret/render.py",
            "exporters/portable_decode.py",
        },
        "simplejpeg": {"data/decode/jpeg_decoder.py"},
        "matplotlib": {"report/png.py"},
        "yaml": {"run/yaml_io.py"},
        "safetensors": {"engine/weights_io.py", "models/weights.py"},
        "scipy": {
            "metrics/bootstrap.py",
            "metrics/paired.py",
            "metrics/power.py",
            "metrics/random_effects.py",
            "metrics/roc.py",
            "metrics/sequential.py",
            "metrics/significance.py",
            "metrics/temperature.py",
            "workflows/data_curve/power_law.py",
            "finetune/logistic.py",
            "exporters/probabilities.py",
        },
        "onnx": {"exporters/onnx_model.py"},
        "onnxruntime": {"exporters/ort_session.py", "exporters/quantize.py"},
        "openvino": {"exporters/openvino_session.py"},
        "sklearn": {
            "data/sources/named.py",
            "workflows/evaluate/charts.py",
            "workflows/evaluate/threshold_results.py",
        },
        "cryptography": {"exporters/bundle/minisign.py"},
        "filelock": {"run/lock.py"},
        "ray": {"workflows/lab/ray_executor.py"},
        "fsspec": {"data/sources/remote.py"},
        "xxhash": {"data/decode/hashing.py", "data/cache/decoded_images.py"},
        "tensorboardX": {"engine/tensorboard.py"},
        "timm": {"models/timm.py"},
    }
    found: dict[str, set[str]] = {name: set() for name in homes}
    for path in FILES:
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.match(r"\s*(?:from|import) (\w+)", line)
            if match and match[1] in found:
                found[match[1]].add(str(path.relative_to(PACKAGE)))
    assert found == homes


def test_the_tree_for_contributors_is_the_disk():
    """Every folder and file is in CONTRIBUTING.md, and nothing else is."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = page.split("```tree\n")[1].split("```")[0]
    shown: set[str] = set()
    room = ""
    for line in tree.splitlines():
        words = line.split("  ")[0] if not line.startswith(" ") else line.strip()
        if not line.startswith(" ") and words.endswith("/"):
            room = words
        names = re.findall(r"[\w/]+\.(?:py|css|js)", line)
        shown |= {room + name for name in names}
    package = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.css"), *PACKAGE.rglob("*.js")]
    disk = {
        str(path.relative_to(PACKAGE))
        for path in package
        if path.name != "__init__.py" and path.parent != PACKAGE
    }
    assert shown == disk


def test_exported_names_are_frozen_and_real():
    assert striate.__all__ == [
        "ImageData",
        "LearningCurve",
        "Recipe",
        "Run",
        "check_data",
        "compare",
        "create_model",
        "explain",
        "export",
        "features",
        "freeze",
        "from_arrays",
        "lab",
        "learning_curve",
        "list_models",
        "list_runs",
        "load_bundle",
        "load_data",
        "load_pretrained",
        "load_run",
        "operating_point",
        "optimize",
        "predict",
        "preview",
        "resume",
        "summary",
        "train",
        "train_recipe",
        "transfer",
    ]
    for name in striate.__all__:
        exported = getattr(striate, name)
        assert callable(exported) or callable(exported.run)  # `st.lab.run("E2")`
    with pytest.raises(AttributeError, match="public names: ImageData"):
        _ = striate.nothing
    assert dir(striate) == striate.__all__


FLAGS = {
    "lab": "--jobs --json --out",
    "lab merge": "--json",
    "lab report": "--html --json --markdown --out --overwrite",
    "lab run": (
        "--data --device --full --jobs --json --minutes --out --quick --quiet "
        "--ray-address --seeds"
    ),
    "export": (
        "--batch --input --json --model --out --outputs --overwrite --precision "
        "--sign --threshold --to --tolerance --trust --verify"
    ),
    "bundle": "--json",
    "bundle extract": "--json --out",
    "bundle show": "--json",
    "bundle verify": "--json --key",
    "optimize": (
        "--budget --goal --json --max-drop --methods --model --out --overwrite --trust"
    ),
    "train": (
        "--accumulate --augment --background --batch-size --border --cache "
        "--cache-gb --class-weights --color --compile --config --crop --cutmix "
        "--device --drop-path --dropout --ema --epochs --erase --flip --fold "
        "--folds --fraction --freeze --head-hidden --help-all "
        "--image-size --in-chans --jpeg "
        "--json --label-smoothing --layout --lr --mean --mixup --model --momentum "
        "--normalize --on-nonfinite --optimizer --out --overwrite --patience "
        "--precision --preset --pretrained --progressive-resize --quiet --resize "
        "--resume --rotate --save-every --scale --schedule --seed --shear --shift "
        "--split --std --rank-timeout --sync-batch-norm --tensorboard --test-fraction "
        "--offline --track-norms --trust --tta --val-fraction --warp --weight-decay "
        "--white-level --workers"
    ),
    "transfer": (
        "--augment --background --batch-norm --batch-size --border --cache "
        "--cache-gb --class-weights --color --compare --config --crop --cut "
        "--device --dropout --epochs --erase --flip --fold --folds --fraction "
        "--freeze --head --head-hidden --help-all "
        "--image-size --in-chans --jpeg --json "
        "--label-smoothing --layer-decay --lr --mean --model --momentum --normalize "
        "--optimizer --out --overwrite --patience --preset --pretrained --quiet "
        "--resize --rotate --scale --schedule --seed --shear --shift --split --std "
        "--offline "
        "--test-fraction --trust --tta --unfreeze --val-fraction --views --warp "
        "--weight-decay --white-level --workers"
    ),
    "evaluate": (
        "--by --data --json --model --operating-point --out --overwrite --recall "
        "--selective-accuracy --split --trust"
    ),
    "predict": (
        "--html --json --layers --model --operating-point --out --overwrite "
        "--threshold --top --trust"
    ),
    "summary": (
        "--against --batch-size --code --csv --depth --effective --explain --html "
        "--image-size --in-chans --json --num-classes --real"
        " --overwrite --trust"
    ),
    "explain": (
        "--ablate --against --image-size --in-chans --json --layer --method --model "
        "--num-classes --open --out --overwrite --sections --seed --target --trust "
        "--unit --visualize --weights"
    ),
    "compare": "--html --json --overwrite --split",
    "runs": "--filter --json --sort --tag --untag",
    "data": "--json",
    "data check": (
        "--csv --html --json --labels --near --offline --overwrite --quiet --ranking "
        "--since --workers"
    ),
    "data split": (
        "--exact --fold --folds --json --out --overwrite --seed --split "
        "--test-fraction --val-fraction"
    ),
    "data preview": (
        "--background --cache --cache-gb --count --image-size --in-chans --jpeg "
        "--json --mean --normalize --out --resize --seed --std --white-level"
        " --overwrite"
    ),
    "data augment": (
        "--augment --border --color --crop --cutmix --erase --flip --image-size "
        "--in-chans --json --mixup --out --overwrite --resize --rotate --scale "
        "--seed --shear --shift --warp"
    ),
    "data fetch": "--json",
    "data curve": (
        "--accumulate --augment --background --batch-size --border --cache "
        "--cache-gb --class-weights --color --compile --config --crop --cutmix "
        "--device --drop-path --dropout --ema --epochs --erase --flip --fractions "
        "--goal --head-hidden --help-all "
        "--image-size --in-chans --jpeg --json "
        "--label-smoothing --layout --lr --mean --mixup --model --momentum "
        "--normalize --on-nonfinite --optimizer --out --overwrite --patience "
        "--precision --preset --progressive-resize --quiet --resize --rotate "
        "--save-every --scale --schedule --seed --seeds --shear --shift --split "
        "--rank-timeout --std --sync-batch-norm --test-fraction --tta "
        "--offline --val-fraction --warp "
        "--weight-decay --white-level --workers"
    ),
    "models": "--json --weights",
    "weights": "--json",
    "weights convert": "--json --overwrite --trust",
    "report": "--json --model --trust",
}


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Every verb, and every subverb as `verb subverb`."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                found[name] = child
                inner = verbs_of(child).items()
                found |= {f"{name} {below}": leaf for below, leaf in inner}
    return found


@pytest.mark.parametrize("verb", verbs_of(build_parser()))
def test_flags_are_frozen(verb):
    """A flag that a user's script may hold changes only on purpose."""
    actions = verbs_of(build_parser())[verb]._actions
    flags = {flag for action in actions for flag in action.option_strings}
    expected = {flag for flag in FLAGS[verb].split() if not flag.endswith("?")}
    assert flags - {"-h", "--help"} == expected


def test_import_contracts_hold():
    """Imports go one way, without cycles; the report imports findings only."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_and_import_need_no_torch():
    code = (
        "import sys, striate, striate.cli.main as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "try: m.main(['train', '--help-all'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'PIL', 'matplotlib', 'rich'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--label-smoothing" in done.stdout


def test_ci_calls_the_readmes_test_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in readme
    assert "make demo" in readme
