"""Golden losses: the first training losses stay equal to the last bit."""

import json
import subprocess
import sys

from support import golden as golden


def computed():
    command = [sys.executable, golden.__file__]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def test_golden_losses():
    """Red after a change of the arithmetic: if it was meant, `--write` them anew."""
    expected = json.loads(golden.GOLDEN_FILE.read_text())
    assert [len(values) for values in expected.values()] == [golden.STEPS] * 3
    results = computed()
    for name, values in expected.items():
        changed = [i for i, value in enumerate(values) if results[name][i] != value]
        assert changed == [], f"{name}: first at step {changed[0]}"


def test_golden_losses_are_plausible():
    """Every one another, none of them wild; and validation stands among them."""
    for values in json.loads(golden.GOLDEN_FILE.read_text()).values():
        losses = [float.fromhex(value.split()[0]) for value in values]
        assert len(set(losses)) == golden.STEPS
        assert all(0 < loss < 5 for loss in losses)
        assert sum(" " in value for value in values) == 2
