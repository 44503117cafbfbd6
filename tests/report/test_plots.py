"""PNG files: whole, sharp, without pyplot, for any numbers and names."""

import struct
import subprocess
import sys

import pytest

from striate.core.findings import Matrix, Series
from striate.report.png import save_curve, save_matrix
from support.report_pages import curve, line

NAN, INF = float("nan"), float("inf")
NAMES = ("$x^2", "a_b\nc", "caf\udce9", "שלום", "日本", "", "$\\frac{$")


def size(path):
    payload = path.read_bytes()
    assert payload.startswith(b"\x89PNG\r\n\x1a\n")
    assert payload.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", payload[16:24])


CURVES = {
    "two": curve(line(1.0, 0.5), line(1.1, 0.6), mark=(1, "best"), log_y=True),
    "gaps": curve(line(1.0, NAN, INF, 0.0, 2.0), log_y=True, percent_y=True),
    "lone": curve(line(0.5)),
    "none": curve(line(), line(NAN)),
    "band": curve(Series(name="$s", x=(1, 2), y=(1, 1), low=(0, NAN), high=(2, 2))),
    "names": curve(*(line(1, 2, name=name) for name in NAMES), title="$\\alpha 日"),
}


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_saved_twice_as_sharp_as_usual(name, tmp_path):
    save_curve(CURVES[name], tmp_path / "new" / "curve.png")
    assert size(tmp_path / "new" / "curve.png") == (1280, 760)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["curve.png"]


@pytest.mark.parametrize("count", [0, 1, 2, len(NAMES), 31])
def test_a_matrix_is_saved_square(count, tmp_path):
    labels = tuple(NAMES[i % len(NAMES)] for i in range(count))
    counts = tuple(tuple(r * c % 5 for c in range(count)) for r in range(count))
    save_matrix(Matrix(labels=labels, counts=counts), tmp_path / "m.png")
    width, height = size(tmp_path / "m.png")
    assert width == height >= 600


def test_different_curves_make_different_images(tmp_path):
    save_curve(curve(line(1, 2)), tmp_path / "a.png")
    save_curve(curve(line(2, 1)), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_importing_the_room_imports_neither_matplotlib_nor_torch():
    rooms = "striate.report.html, striate.report.png, striate.report.progress"
    code = f"import {rooms}, striate.report.terminal, sys"
    check = "print(sorted({'matplotlib', 'torch', 'PIL'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "[]"


def test_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from striate.core.findings import Matrix\n"
        "from striate.report.png import save_matrix\n"
        "one = Matrix(labels=('a',), counts=((1,),))\n"
        "save_matrix(one, Path(sys.argv[1]))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.png")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "False"
