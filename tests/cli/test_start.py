"""The program as the shell starts it: Ctrl-C while it loads, closed pipes, ASCII."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from striate.cli import start
from support.images import write_folder

PROGRAM = [sys.executable, "-m", "striate"]


def test_ctrl_c_while_the_program_loads():
    """Every import in `cli/` comes after the start, so there is no traceback."""
    code = (
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'striate.cli.main':\n"
        "            print('loading', flush=True)\n"
        "            time.sleep(20)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from striate.cli.start import start\n"
        "sys.exit(start())\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert child.stdout.readline() == "loading\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "stopped\n")


def test_training_goes_on_when_the_reader_has_gone(tmp_path):
    """`striate train … 2>&1 | head -1` left a run that was `running` for ever."""
    write_folder(tmp_path / "photos")
    words = ["train", "photos", "--epochs", "2", "--model", "tutorial_gray"]
    child = subprocess.Popen(
        [*PROGRAM, *words, "--image-size", "8", "--out", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    child.stdout.close()
    assert child.wait(300) == 0
    assert json.loads(Path("run/manifest.json").read_text())["status"] == "done"


def test_a_closed_pipe_discards_what_follows():
    reader, writer = os.pipe()
    original = os.fdopen(writer, "w")
    stream = start._replaced(original)
    os.close(reader)
    for _ in range(3):
        stream.write("text\n")
        stream.flush()
    original.close()


def test_class_names_in_a_process_without_utf_8(tmp_path):
    """The names from `listdir` were not those in the files, which are UTF-8."""
    write_folder(tmp_path / "photos", ("猫", "Ärger"))
    # `C` with UTF-8 mode off is how cron and some containers start programs.
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [*PROGRAM, "data", "split", "photos", "--out", "split.csv"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "猫" in done.stdout.decode()
    assert "Ärger" in Path("split.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_training_in_a_process_without_utf_8(tmp_path):
    write_folder(tmp_path / "photos", ("猫", "Ärger"))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    for words in (
        ["train", "photos", "--epochs", "1"],
        ["evaluate", "photos-tutorial_gray"],
    ):
        done = subprocess.run(
            [*PROGRAM, *words], env=environment, capture_output=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
