"""The house is held by machines: sizes, names, tree, exports, flags, imports."""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import striate
from striate.cli.main import build_parser

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "src" / "striate"
FILES = sorted(HOUSE.rglob("*.py"))
BANNED_NAMES = {"utils", "util", "common", "helpers", "misc", "base"}


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def code_lines(function: ast.FunctionDef) -> int:
    """Count a function's lines without its docstring."""
    total = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    return total - ((first.end_lineno or 0) - first.lineno + 1) * documented


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
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


def deeds(function: ast.FunctionDef) -> list[str]:
    """Return what a function does: without its docstring and its own imports."""
    rest = function.body[ast.get_docstring(function) is not None :]
    return [ast.dump(one) for one in rest if not isinstance(one, ast.ImportFrom)]


def test_no_function_of_one_name_stands_twice():
    """Of two copies only one gets mended; methods may be alike."""
    bodies = {}
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and code_lines(node) > 3:
                key = node.name, *deeds(node)
                bodies.setdefault(key, []).append(str(path.relative_to(HOUSE)))
    assert [(key[0], found) for key, found in bodies.items() if found[1:]] == []


def test_no_file_hides_behind_a_vague_name():
    assert [path for path in FILES if path.stem in BANNED_NAMES] == []


def test_every_file_says_what_it_is():
    silent = [
        p for p in FILES if not ast.get_docstring(ast.parse(p.read_text("utf-8")))
    ]
    assert silent == []


def test_one_foreign_library_one_file():
    """Pillow, simplejpeg, matplotlib and yaml each have one home (Pillow two)."""
    homes = {
        "PIL": {"data/decode/decode.py", "interpret/render.py"},
        "simplejpeg": {"data/decode/jpeg_decoder.py"},
        "matplotlib": {"report/png.py"},
        "yaml": {"run/yaml_io.py"},
        "safetensors": {"engine/checkpoint.py", "models/weights.py"},
        "scipy": {
            "metrics/significance.py",
            "workflows/data_curve/power_law.py",
            "finetune/logistic.py",
        },
        "sklearn": {"data/sources/named.py"},
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
                found[match[1]].add(str(path.relative_to(HOUSE)))
    assert found == homes


def test_the_readme_tree_is_the_disk():
    """Every room and file stands in the README, and nothing else does."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("```tree\n")[1].split("```")[0]
    shown: set[str] = set()
    room = ""
    for line in tree.splitlines():
        words = line.split("  ")[0] if not line.startswith(" ") else line.strip()
        if not line.startswith(" ") and words.endswith("/"):
            room = words
        names = re.findall(r"[\w/]+\.(?:py|css|js)", line)
        shown |= {room + name for name in names}
    package = [*HOUSE.rglob("*.py"), *HOUSE.rglob("*.css"), *HOUSE.rglob("*.js")]
    disk = {
        str(path.relative_to(HOUSE))
        for path in package
        if path.name != "__init__.py" and path.parent != HOUSE
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
        "features",
        "freeze",
        "from_arrays",
        "learning_curve",
        "list_models",
        "load_data",
        "load_pretrained",
        "load_run",
        "operating_point",
        "predict",
        "preview",
        "resume",
        "summary",
        "train",
        "train_recipe",
    ]
    for name in striate.__all__:
        assert callable(getattr(striate, name))
    with pytest.raises(AttributeError, match="it has: ImageData"):
        _ = striate.nothing
    assert dir(striate) == striate.__all__


FLAGS = {
    "train": (
        "--accumulate --augment --background --batch-size --border --cache "
        "--cache-gb --class-weights --color --compile --config --crop --cutmix "
        "--device --drop-path --dropout --ema --epochs --erase --flip --fold "
        "--folds --fraction --freeze --head-hidden --image-size --in-chans --jpeg "
        "--json --label-smoothing --layout --lr --mean --mixup --model --momentum "
        "--normalize --on-nonfinite --optimizer --out --overwrite --patience "
        "--precision --preset --pretrained --progressive-resize --quiet --resize "
        "--resume --rotate --save-every --scale --schedule --seed --shear --shift "
        "--split --std --sync-batch-norm --tensorboard --test-fraction "
        "--track-norms --trust --tta --val-fraction --warp --weight-decay "
        "--white-level --workers"
    ),
    "transfer": (
        "--augment --background --batch-norm --batch-size --border --cache "
        "--cache-gb --class-weights --color --compare --config --crop --cut "
        "--device --dropout --epochs --erase --flip --fold --folds --fraction "
        "--freeze --head --head-hidden --image-size --in-chans --jpeg --json "
        "--label-smoothing --lr --lr-decay --mean --model --momentum --normalize "
        "--optimizer --out --overwrite --patience --preset --pretrained --quiet "
        "--resize --rotate --scale --schedule --seed --shear --shift --split --std "
        "--test-fraction --trust --tta --unfreeze --val-fraction --views --warp "
        "--weight-decay --white-level --workers"
    ),
    "evaluate": (
        "--by --data --json --operating-point --out --overwrite --recall "
        "--selective-accuracy --split"
    ),
    "predict": "--json --layers --out",
    "summary": (
        "--against --batch-size --csv --depth --effective --explain --html "
        "--image-size --in-chans --json --num-classes --real"
    ),
    "explain": (
        "--against --image-size --in-chans --json --layer --method --num-classes "
        "--open --out --overwrite --sections --seed --target --unit --weights"
    ),
    "compare": "--html --json --split",
    "data": "--json",
    "data check": (
        "--csv --html --json --labels --near --quiet --ranking --since --workers"
    ),
    "data split": (
        "--exact --fold --folds --json --out --overwrite --seed --split "
        "--test-fraction --val-fraction"
    ),
    "data preview": (
        "--background --cache --cache-gb --count --image-size --in-chans --jpeg "
        "--json --mean --normalize --out --resize --seed --std --white-level"
    ),
    "data augment": (
        "--augment --border --color --crop --cutmix --erase --flip --image-size "
        "--in-chans --json --mixup --out --overwrite --resize --rotate --scale "
        "--seed --shear --shift --warp"
    ),
    "data curve": (
        "--accumulate --augment --background --batch-size --border --cache "
        "--cache-gb --class-weights --color --compile --config --crop --cutmix "
        "--device --drop-path --dropout --ema --epochs --erase --flip --fractions "
        "--goal --head-hidden --image-size --in-chans --jpeg --json "
        "--label-smoothing --layout --lr --mean --mixup --model --momentum "
        "--normalize --on-nonfinite --optimizer --out --overwrite --patience "
        "--precision --preset --progressive-resize --quiet --resize --rotate "
        "--save-every --scale --schedule --seed --seeds --shear --shift --split "
        "--std --sync-batch-norm --test-fraction --tta --val-fraction --warp "
        "--weight-decay --white-level --workers"
    ),
    "models": "--json --weights",
    "report": "--json",
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


def test_the_staircase_holds():
    """One direction of imports, pillars apart, the report knows findings only."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_and_import_need_no_torch():
    code = (
        "import sys, striate, striate.cli.main as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "try: m.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'sklearn', 'PIL', 'matplotlib', 'rich'} & set(sys.modules)\n"
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
