"""C5: thousands of broken files cost no crash, no hang, no memory, and none is lost.

The 100,000 of `make test-all` go through the same door in ten folders.
"""

import collections
import contextlib
import time

import pytest

from striate.data.check.image_stats import ExaminedImage
from striate.data.check.sandbox import examine_files
from striate.data.decode.decode import decode_with_info, without_pillow_warnings
from striate.data.decode.file_bytes import UndecodableError
from support.images import pil_image, snapshot, stripes, write_folder
from support.mutated_files import mutants


def check_folder(striate, root, files) -> collections.Counter:
    """Check a folder of mutants and return the reasons with their counts."""
    write_folder(root, classes=["down"], count=3)
    (root / "across").mkdir()
    for number, (kind, payload) in enumerate(files):
        (root / f"across/{number:05d}.{kind.lower()}").write_bytes(payload)
    before = snapshot(root)
    result = striate("data", "check", root, "--json", "--near", "off")
    assert snapshot(root) == before
    checked = result.json
    assert result.code == 1
    assert checked["file_count"] == len(checked["files"])
    assert (
        checked["file_count"]
        == checked["used"] + checked["quarantined"] + checked["ignored"]
    )
    names = {file["image_path"] for file in checked["files"]}
    assert len(names) == checked["file_count"]
    return collections.Counter(file.get("reason", "") for file in checked["files"])


def test_2000_mutants(striate, tmp_path):
    reasons = check_folder(striate, tmp_path / "set", mutants(2000))
    assert sum(reasons.values()) == 2003
    assert not {"crashes-the-decoder", "too-slow"} & reasons.keys()
    # Most are refused; some damage leaves an image that decodes, elsewhere.
    assert 300 < reasons[""] < 900
    assert {"truncated", "damaged", "not-an-image", "too-large"} <= reasons.keys()


def test_no_mutant_takes_long():
    """Processor time, as other processes share the machine."""
    with without_pillow_warnings():
        for kind, payload in mutants(500, seed=1):
            began = time.process_time()
            with contextlib.suppress(UndecodableError):
                decode_with_info(payload)
            assert time.process_time() - began < 2, kind


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_100000_mutants(striate, tmp_path, seed):
    """Ten folders of 10,000. Workers hold to 4 GiB; 512 MiB are enough for these."""
    reasons = check_folder(striate, tmp_path / "set", mutants(10_000, seed))
    assert sum(reasons.values()) == 10_003
    assert not {"crashes-the-decoder", "too-slow"} & reasons.keys()
    print(dict(reasons))


@pytest.mark.slow
def test_mutants_stay_within_512_mebibytes(tmp_path):
    """With the address space held to 512 MiB above a bare worker's, none is lost."""
    import sys

    paths = []
    for number, (_, payload) in enumerate(mutants(10_000, seed=99)):
        paths.append(tmp_path / f"{number:05d}")
        paths[-1].write_bytes(payload)
    program = [
        sys.executable,
        "-c",
        "from pathlib import Path\n"
        "import striate.data.check.sandbox_worker as worker\n"
        "text = Path('/proc/self/status').read_text()\n"
        "bare = int(text.split('VmSize:')[1].split()[0]) << 10\n"
        "worker.MEMORY = bare + (512 << 20)\n"
        "worker.main([])\n",
    ]
    wide = [type(answer) for answer in examine_files(paths)]
    tight = [type(answer) for answer in examine_files(paths, program=program)]
    assert wide == tight
    assert ExaminedImage in tight


def test_an_intact_image_among_mutants_is_used(striate, tmp_path):
    """Intact images among the mutants are used."""
    pil_image(stripes(0, 7, 24, 32, 3)).save(tmp_path / "sound.png")
    paths = [tmp_path / "sound.png"]
    for number, (_, payload) in enumerate(mutants(60, seed=3)):
        paths.append(tmp_path / f"{number:02d}")
        paths[-1].write_bytes(payload)
    answers = list(examine_files([*paths, paths[0]]))
    assert isinstance(answers[0], ExaminedImage)
    assert answers[0].stats == answers[-1].stats
