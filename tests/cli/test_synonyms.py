"""Flags and commands of other libraries are answered with those of striate."""

import re
import shlex

import pytest

import synonyms_page
from striate.cli.main import build_parser
from striate.cli.synonyms import (
    all_commands,
    argument_names,
    check_words,
    flag_names,
    subcommands,
)
from striate.core.errors import SettingError, StriateError
from striate.core.synonym_table import COMMANDS, SYNONYMS, UNAVAILABLE
from striate.run.parse_settings import make_recipe, setting_types

PARSER = build_parser()
PARSERS = all_commands(PARSER)
FLAGS = {flag for parser in PARSERS.values() for flag in flag_names(parser)}
ARGUMENTS = {name for parser in PARSERS.values() for name in argument_names(parser)}
NAMES = [(name, synonym) for synonym in SYNONYMS for name in synonym.names.split()]


def answer(line):
    """Return the error for a command line."""
    with pytest.raises(StriateError) as caught:
        check_words(PARSER, shlex.split(line))
    return caught.value


def parse(fix):
    """Parse the command in a remedy as the command line would."""
    program, *words = shlex.split(fix.partition("run: ")[2])
    assert program == "striate"
    check_words(PARSER, words)
    return PARSER.parse_args(words)


# --- the table


def test_a_name_stands_for_one_thing():
    names = [name for name, _ in NAMES]
    assert len(names) == len(set(names)) > 200
    assert sum(bool(synonym.targets) for _, synonym in NAMES) > 150


@pytest.mark.parametrize("synonym", SYNONYMS, ids=lambda s: s.names.split()[0])
def test_what_the_table_names_exists(synonym):
    for target in synonym.targets.split():
        assert target in (ARGUMENTS if target.isupper() else FLAGS)
        if synonym.value and target in setting_types():
            make_recipe({"data": "digits", target: synonym.value})
    check_sentence(synonym.note)
    check_sentence(synonym.absent)
    assert synonym.targets or synonym.note


def check_sentence(text):
    """Check that each flag and each command in a sentence exists."""
    own = re.sub(r"torchrun --\S+", "", text)
    assert {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+)", own)} <= FLAGS
    for words in re.findall(r"striate ([a-z]+)", own):
        assert words in PARSERS, words


def test_commands_of_other_tools_lead_to_real_commands():
    for word, command in COMMANDS.items():
        assert word not in subcommands(PARSER)
        words, _, flag = command.partition("--")
        assert words.strip() in {*PARSERS, ""}
        assert flag in {"", "help", "version", "resume"}
    for word, fix in UNAVAILABLE.items():
        assert word not in {*PARSERS, *COMMANDS}
        check_sentence(fix)


@pytest.mark.parametrize("verb", PARSERS)
def test_each_flag_of_another_library_is_answered(verb):
    """With the flag of striate, and with a command that striate accepts."""
    parser = PARSERS[verb]
    if subcommands(parser):
        return
    own = {*flag_names(parser), *argument_names(parser)}
    for name, synonym in NAMES:
        if name in own:
            continue
        flag = f"--{name.replace('_', '-')}"
        value = "" if len(name) == 1 else "3"
        error = answer(f"{verb} {flag[1:] if len(name) == 1 else flag} {value}")
        assert flag.lstrip("-") in error.what
        if target := synonym.target_in(own):
            shown = target if target.isupper() else f"--{target.replace('_', '-')}"
            assert shown in error.what
            assert synonym.value in error.what
        if "run: " in error.fix:
            parse(error.fix)


def test_the_page_has_the_table():
    text = synonyms_page.PAGE.read_text(encoding="utf-8")
    assert synonyms_page.page_text(text) == text


# --- answers, and corrected commands


CORRECTED = {
    "train photos --learning-rate 0.01": "train photos --lr 0.01",
    "train photos --learning_rate=0.01": "train photos --lr 0.01",
    "train --data photos --epochs 3": "train photos --epochs 3",
    "train photos --arch resnet18": "train photos --model resnet18",
    "train photos --imgsz 64 --batch 16": "train photos --image-size 64 "
    "--batch-size 16",
    "train photos --bs 8 --wd 0.1": "train photos --batch-size 8 --weight-decay 0.1",
    "train --amp photos": "train photos --precision bf16",
    "train photos --hflip 0.5": "train photos --flip horizontal",
    "train photos --weights w.pth": "train photos --pretrained w.pth",
    "train photos --project runs --name a": "train photos --out runs/a",
    "train photos --name a --project runs": "train photos --out runs/a",
    "train photos --opt sgd": "train photos --optimizer sgd",
    "train photos --gpus 1": "train photos --device cuda",
    "train photos --num-classes 4": "train photos",
    "train photos --clip-grad 1.0": "train photos",
    "train photos --exist-ok True": "train photos --overwrite",
    "train photos --exist-ok False": "train photos",
    "train photos --output-dir 'a b/사진'": "train photos --out 'a b/사진'",
    "train photos --freeze a --freeze b --bs 2": "train photos --freeze a "
    "--freeze b --batch-size 2",
    "train photos -e 5": "train photos --epochs 5",
    "train photos -epochs 5": "train photos --epochs 5",
    "train photos —epochs 5": "train photos --epochs 5",
    "train photos --Batch_Size 5": "train photos --batch-size 5",
    "train photos epochs 5": "train photos --epochs 5",
    "train photos epochs=5 lr0=0.1": "train photos --epochs 5 --lr 0.1",
    "train data=photos": "train photos",
    "train photos --epohcs 5": "train photos --epochs 5",
    "train photos --ep 5": "train photos --epochs 5",
    "fit photos --lr 0.1": "train photos --lr 0.1",
    "val first": "evaluate first",
    "infer --weights best.pt --source a b": "predict RUN a b",
    "predict --run first --source a": "predict first a",
    "finetune photos": "transfer photos",
    "resume first": "train --resume first",
    "summary --model resnet18 --imgsz 64": "summary resnet18 --image-size 64",
    "check photos --report a.html": "data check photos --html a.html",
    "data show photos": "data preview photos",
    "data --json check --data photos": "data check photos --json",
    "--lr 0.1 train photos": "train photos --lr 0.1",
    "predict first a.png -- --name": None,
    "train photos --lr 0.1": None,
    "train photos --seed -1": None,
    "train --data photos --help": None,
}


@pytest.mark.parametrize(("line", "corrected"), CORRECTED.items())
def test_the_corrected_command(line, corrected):
    if corrected is None:
        check_words(PARSER, shlex.split(line))
        return
    error = answer(line)
    assert error.exit_code == 2
    assert error.fix.endswith(f"run: striate {corrected}")
    parse(error.fix)


# No command is shown where two would be possible.
ANSWERS = {
    "train --verbose photos": "striate has no --verbose: progress is shown",
    "train photos --hflip --vflip": "--vflip is --flip vertical here",
    "train photos --learning-rate": "--learning-rate is --lr here",
    "train photos --val-dir photos/val": "put the folders train, val and test",
    "predict first a.png --batch-size 8": "it uses the settings of the run",
    "predict first a.png --bs 8": "no flag --bs, and no --batch-size; it uses",
    "compare a b --name x": "--out is a flag of train, transfer, evaluate, predict, …",
    "train photos --cut a": "--cut is a flag of transfer",
    "train photos --frobnicate x": "`striate train` has no flag --frobnicate",
    "--frobnicate": "unknown flag --frobnicate",
    "data --jsn check a": "unknown flag 'data --jsn'",
    "predicted first": "unknown command 'predicted'",
    "serve first": "`striate serve` is not available yet",
    "help": "the command help is --help here",
    "report first second": "unexpected argument 'second'",
}


@pytest.mark.parametrize(("line", "message"), ANSWERS.items())
def test_an_answer_without_a_command(line, message):
    error = answer(line)
    assert message in error.what
    assert "run: striate train" not in error.fix


def test_paths_with_spaces_need_quotes(tmp_path):
    (tmp_path / "my 사진").mkdir()
    assert answer("train my 사진").fix.endswith("quotes: striate train 'my 사진'")
    assert "a path with spaces needs quotes" in answer("train my photos").fix
    (tmp_path / "photos").mkdir()
    assert answer("data photos").fix.startswith("run: striate data check photos;")


def test_an_existing_file_is_no_setting(tmp_path):
    (tmp_path / "epochs=5").mkdir()
    check_words(PARSER, ["train", "epochs=5"])


def test_the_command_line_answers(striate):
    said = striate("train", "digits", "--learning-rate", "0.1")
    assert (said.code, said.out) == (2, "")
    assert "--learning-rate is --lr here" in said.err
    assert "run: striate train digits --lr 0.1" in said.err


def test_settings_in_python_and_in_files(tmp_path, striate):
    with pytest.raises(SettingError, match="use lr"):
        make_recipe({"data": "digits", "learning_rate": 0.1})
    (tmp_path / "a.yaml").write_text("data: digits\nhflip: 0.5\n")
    said = striate("train", "--config", "a.yaml")
    assert said.code == 2
    assert "no setting is called 'hflip'" in said.err
    assert "use flip=horizontal" in said.err


# --- suggestions

# Wrong flags of `striate train`, with the flag that they can mean; empty: none.
WRONG = {
    **{"optimzer": "optimizer", "optimiser": "optimizer", "momentun": "momentum"},
    **{"epoch": "epochs", "epocs": "epochs", "epohcs": "epochs", "eopchs": "epochs"},
    **{
        "bacth_size": "batch_size",
        "batchsize": "batch_size",
        "batch_sise": "batch_size",
    },
    **{"weight_decy": "weight_decay", "wieght_decay": "weight_decay", "lrr": "lr"},
    **{"schedul": "schedule", "shedule": "schedule", "smothing": "label_smoothing"},
    **{"label_smothing": "label_smoothing", "droput": "dropout", "drop_out": "dropout"},
    **{
        "droppath": "drop_path",
        "modle": "model",
        "models": "model",
        "pretrain": "pretrained",
    },
    **{"pretraind": "pretrained", "frezze": "freeze", "freez": "freeze"},
    **{"image_sise": "image_size", "imagesize": "image_size", "in_chan": "in_chans"},
    **{"resise": "resize", "resiz": "resize", "colr": "color", "rotat": "rotate"},
    **{"shfit": "shift", "sheer": "shear", "wrap": "warp", "eras": "erase"},
    **{"mixp": "mixup", "cutmx": "cutmix", "augement": "augment", "agument": "augment"},
    **{"flipp": "flip", "boarder": "border", "order": "", "clip": "", "grip": ""},
    **{
        "val_fracton": "val_fraction",
        "test_fracton": "test_fraction",
    },
    **{"fractoin": "fraction", "seeds": "seed", "sead": "seed", "worker": "workers"},
    **{"wokers": "workers", "cach": "cache", "cachegb": "cache_gb", "cage": ""},
    **{"devise": "device", "precison": "precision", "laytout": "layout"},
    **{"complie": "compile", "outt": "out", "overwirte": "overwrite", "nut": ""},
    **{"quite": "quiet", "resum": "resume", "presets": "preset", "confg": "config"},
    **{"jason": "json", "tensorbord": "tensorboard", "normalise": "normalize"},
    **{
        "stds": "std",
        "means": "mean",
        "emas": "ema",
        "patiense": "patience",
        "save_evry": "save_every",
    },
    **{"backgroud": "background", "spilt": "split", "splitt": "split", "jpg": "jpeg"},
    **{"acumulate": "accumulate", "progressive": "progressive_resize", "ttas": "tta"},
    **{"white": "white_level", "timout": "", "rank": "rank_timeout"},
    **{"nesterov": "", "dampening": "", "eps": "", "rho": "", "alpha": "", "beta2": ""},
    **{"temperature": "", "teacher": "", "distill": "", "prune": "", "quantize": ""},
    **{
        "anchor": "",
        "box": "",
        "iou": "",
        "nms": "",
        "mask": "",
        "depth": "",
        "tag": "",
    },
    **{"bucket": "", "region": "", "token": "", "hub": "", "push": "", "cloud": ""},
    **{
        "host": "",
        "port": "",
        "user": "",
        "debug": "",
        "fast": "",
        "slow": "",
        "log": "",
    },
    **{"plot": "", "dry_run": "", "yes": "", "all": "", "ignore": "", "exclude": ""},
    **{
        "multi_label": "",
        "hue": "",
        "blur": "",
        "noise": "",
        "contrast": "",
        "gpu": "",
    },
    **{"lookahead": "", "sam": "", "swa": "", "opt": "", "ops": "", "outer": ""},
    **{
        "kernel": "",
        "stride": "",
        "padding": "",
        "width": "",
        "height": "",
        "layers": "",
    },
}


def test_no_suggestion_is_wrong():
    suggested, missed = {}, []
    for word, right in WRONG.items():
        hint = answer(f"train photos --{word.replace('_', '-')} 1").fix
        flags = re.findall(
            r"--([a-z-]+)", hint.partition("? ")[0] if "?" in hint else ""
        )
        names = {flag.replace("-", "_") for flag in flags}
        if names - {right}:
            suggested[word] = names
        elif right and not names:
            missed.append(word)
    assert len(WRONG) >= 100
    assert suggested == {}
    assert len(missed) <= 3, missed
