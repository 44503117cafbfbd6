"""The verbs: exit codes, pure JSON, nearest names, help without torch."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from striate.cli.main import VERBS
from striate.core.files import read_json
from support.images import snapshot, write_folder, write_table

# --- help


def test_help_of_every_verb_needs_no_torch():
    """One process for all of them; `--help` answers in a blink because of this."""
    code = (
        "import sys\n"
        "from striate.cli.main import VERBS, main\n"
        "for words in [['--help'], ['--version'], *([v, '--help'] for v in VERBS)]:\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as end:\n"
        "        assert end.code in (0, None), words\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'matplotlib', 'PIL'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"usage: striate {verb}" in done.stdout


def test_without_a_verb_the_help_is_shown(striate):
    said = striate()
    assert said.code == 2
    assert "COMMAND" in said.out


def test_version(striate):
    assert striate("--version").out.startswith("striate 0.")


# --- wrong words


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["trian"], ["unknown command 'trian'", "did you mean train"]),
        (["train", "digits", "--epohcs", "3"], ["--epohcs", "did you mean --epochs"]),
        (["train", "digits", "--ep", "3"], ["no flag --ep", "did you mean --epochs"]),
        (["train", "digits", "--epochs", "x"], ["epochs must be int, got 'x'"]),
        (["train", "digits", "--model", "lenet"], ["did you mean lenet5"]),
        (["train", "digits", "--optimizer", "adamz"], ["did you mean adam"]),
        (["train", "digits", "--preset", "fashion"], ["no preset is called 'fashion'"]),
        (["train", "digits", "--config", "no.yaml"], ["settings file cannot be read"]),
        (["train", "digits", "--device", "tpu"], ["device 'tpu' cannot be used"]),
        (["train"], ["no data set is given", "striate train digits"]),
        (
            ["train", "digits", "--val-fraction", "0.9"],
            ["no images are left for training"],
        ),
        (["evaluate", "nowhere"], ["the run folder does not exist"]),
        (["evaluate"], ["RUN"]),
        (["predict", "nowhere", "x.png"], ["the run folder does not exist"]),
        (["report", "nowhere"], ["the run folder does not exist"]),
        (
            ["models", "lenett"],
            ["no network is called 'lenett'", "did you mean lenet5"],
        ),
        (["evaluate", "x", "--split", "tset"], ["tset"]),
    ],
)
def test_wrong_words(striate, tmp_path, words, messages):
    said = striate(*words)
    assert (said.code, said.out) == (2, "")
    for message in messages:
        assert message in said.err
    as_json = striate(*words, "--json")
    assert (as_json.code, as_json.err) == (2, "")
    assert set(as_json.json) == {"error", "what", "where", "do"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rank", [0, 1])
def test_only_training_is_shared_among_processes(
    striate, shared_run, monkeypatch, rank
):
    """Or each would do all of it, into the same files; rank 0 says so for all."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = snapshot(shared_run.path)
    words = {
        "transfer": ("digits", "--model", "lenet5", "--pretrained", "weights.pth"),
        "predict": (shared_run.path, "digits"),
        "data": ("check", "digits"),
        "weights": ("convert", "a.pth", "b.safetensors"),
        "summary": ("lenet5",),
        "models": (),
        "lab": (),
        "bundle": ("show", "a.striate"),
    }
    for verb in sorted(set(VERBS) - {"train"}):
        said = striate(verb, *words.get(verb, (shared_run.path,)))
        assert (said.code, said.out) == (2, "")
        told = f"striate {verb} is for one process, and there are 2"
        assert (told in said.err) is (rank == 0)
    assert snapshot(shared_run.path) == before


# --- train


def test_train_says_where_first_and_last(striate, shared_folder):
    said = striate("train", shared_folder, "--epochs", "2", "--out", "run")
    assert said.code == 0
    lines = said.out.splitlines()
    assert "run" in lines[0]
    assert "stripes" in said.out
    for word in (
        "test accuracy",
        "95 % interval",
        "balanced accuracy",
        "By class",
        "report.html",
        "next:",
    ):
        assert word in said.out.replace("\u00a0", " ")
    assert "epoch 2/2" in said.err
    assert " predict run " in said.out


def test_train_json_is_pure(striate, shared_folder, tmp_path):
    said = striate("train", shared_folder, "--epochs", "1", "--out", "run", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json["run"] == "run"
    assert said.json["split"] == "test"
    assert 0 <= said.json["accuracy"] <= 1
    assert said.json["parameters"] == 11_952
    scores = read_json(tmp_path / "run/scores.json")
    assert scores["test"]["accuracy"] == said.json["accuracy"]


def test_quiet_shows_no_progress(striate, shared_folder):
    said = striate("train", shared_folder, "--epochs", "1", "--out", "run", "--quiet")
    assert (said.code, said.err) == (0, "")


def test_flags_lie_over_config_over_preset(striate, shared_folder, tmp_path):
    (tmp_path / "my.yaml").write_text(f"data: {shared_folder}\nepochs: 3\nlr: 0.01\n")
    words = ("--config", "my.yaml", "--epochs", "1", "--preset", "fashion-gray")
    assert striate("train", *words, "--out", "run").code == 0
    args = (tmp_path / "run/args.yaml").read_text()
    assert "epochs: 1\n" in args
    assert "lr: 0.01\n" in args
    assert "batch_size: 128\n" in args


def test_args_yaml_trains_the_same_again(striate, shared_folder, tmp_path):
    assert striate("train", shared_folder, "--epochs", "1", "--out", "a").code == 0
    assert striate("train", "--config", "a/args.yaml", "--out", "b").code == 0
    best = [(tmp_path / r / "weights/best.safetensors").read_bytes() for r in "ab"]
    assert best[0] == best[1]


def test_a_csv_trains(striate, tmp_path):
    said = striate("train", write_table(tmp_path), "--epochs", "1", "--json")
    assert said.code == 0


# --- evaluate


def test_evaluate(striate, shared_run):
    said = striate("evaluate", shared_run.path)
    assert said.code == 0
    assert "test accuracy" in said.out
    assert "across" in said.out
    found = striate("evaluate", shared_run.path, "--split", "val", "--json").json
    assert found["accuracy"] == shared_run.scores["val"]["accuracy"]
    assert found["skipped"] == 0


def test_other_images_are_matched_by_name(striate, shared_run, tmp_path):
    """Class folders in another order, one class missing, one file unusable."""
    write_folder(tmp_path / "other", classes=("aaa", "down"), seed=3)
    shutil.rmtree(tmp_path / "other/aaa")
    before = snapshot(tmp_path)
    clean = striate("evaluate", shared_run.path, "--data", "other", "--json")
    assert clean.code == 0
    assert (clean.json["count"], clean.json["split"]) == (12, "other")
    assert clean.json["accuracy"] > 0.9
    assert snapshot(tmp_path) == before
    (tmp_path / "other/down/zero.png").touch()
    said = striate("evaluate", shared_run.path, "--data", "other")
    assert said.code == 1
    assert "not used: down/zero.png: not-an-image (the file is empty)" in said.out
    found = striate("evaluate", shared_run.path, "--data", "other", "--json")
    assert (found.code, found.json["skipped"]) == (1, 1)


def test_a_class_the_network_does_not_know(striate, shared_run, tmp_path):
    write_folder(tmp_path / "other", classes=("across", "aslant"))
    said = striate("evaluate", shared_run.path, "--data", "other")
    assert said.code == 2
    assert "the network lacks these classes: aslant" in said.err
    assert "the network has these classes: across, down" in said.err


def test_a_split_of_other_images(striate, shared_run, tmp_path):
    write_folder(tmp_path / "other/train", seed=4)
    write_folder(tmp_path / "other/test", count=3, seed=5)
    words = (
        "evaluate",
        shared_run.path,
        "--data",
        "other",
        "--split",
        "test",
        "--json",
    )
    assert striate(*words).json["count"] == 6


# --- the rest


def test_models(striate):
    rows = {row["name"]: row for row in striate("models", "--json").json}
    assert rows["lenet5"]["parameters"] == 60_000
    assert rows["tutorial_color"]["parameters"] == 1_451_314
    said = striate("models", "lenet")
    assert said.code == 0
    assert "61,706" in said.out
    assert "notes" not in said.out.split("what")[-1].split("LeNet")[0]


def test_report_is_written_again(striate, shared_folder, tmp_path):
    striate("train", shared_folder, "--epochs", "1", "--out", "run")
    (tmp_path / "run/report.html").unlink()
    assert striate("report", "run").out.strip() == "run/report.html"
    assert (tmp_path / "run/report.html").is_file()
    assert striate("report", "run", "--json").json == {"report": "run/report.html"}


def test_a_damaged_run_is_named(striate, shared_folder, tmp_path):
    striate("train", shared_folder, "--epochs", "1", "--out", "run")
    weights = tmp_path / "run/weights/best.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    said = striate("evaluate", "run")
    assert said.code == 2
    assert "not a valid safetensors file" in said.err
    for name in ("split.csv", "results.csv", "classes.json", "args.yaml"):
        path = tmp_path / "run" / name
        kept = path.read_bytes()
        path.unlink()
        said = striate("report", "run")
        assert said.code == 2 or name == "split.csv"
        path.write_bytes(kept)


def test_a_report_of_damaged_files_names_them(striate, shared_run, tmp_path):
    """All of them are whole files of the right form, which lack what is told."""
    shutil.copytree(shared_run.path, tmp_path / "run")
    said = read_json(tmp_path / "run/manifest.json")
    del said["finished"]
    lacking = {
        "manifest.json": json.dumps(said),
        "results.csv": header(tmp_path / "run/results.csv"),
        "predictions_test.csv": header(tmp_path / "run/predictions_test.csv"),
    }
    messages = (
        "keys are missing",
        "a row or a column is missing",
        "has no predictions",
    )
    for (name, text), message in zip(lacking.items(), messages, strict=True):
        path = tmp_path / "run" / name
        kept = path.read_bytes()
        path.write_text(text)
        said = striate("report", "run")
        assert said.code == 2
        assert message in said.err
        assert f"run/{name}" in said.err
        assert "restore" in said.err
        path.write_bytes(kept)


def header(path):
    return path.read_text().splitlines()[0] + "\n"


def test_keyboard_interrupt_outside_the_loop(striate, monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, "models", replace(VERBS["models"], run=interrupt))
    said = striate("models")
    assert (said.code, said.out, said.err) == (130, "", "stopped\n")


def test_a_reader_that_has_gone():
    """`striate --help | true` must end quietly: the pipe closes before it writes."""
    command = [sys.executable, "-m", "striate", "--help"]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.close()
    child.stdin.close()
    said = child.stderr.read()
    child.stderr.close()
    child.wait(30)
    assert said == b""


def test_a_broken_pipe_is_no_error(striate, monkeypatch):
    from striate.cli import main

    def broken(options):
        raise BrokenPipeError

    replaced = []
    monkeypatch.setitem(VERBS, "models", replace(VERBS["models"], run=broken))
    monkeypatch.setattr(main.os, "dup2", lambda *pair: replaced.append(pair))
    assert striate("models").code == 0
    main.os.close(replaced[0][0])
