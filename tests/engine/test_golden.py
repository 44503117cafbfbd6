"""Golden losses: what the code computes, it goes on computing, to the last bit."""

import json
import subprocess
import sys

from support import golden as golden


def computed():
    words = [sys.executable, golden.__file__]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_first_losses_of_three_networks():
    """Red after a change of the arithmetic: if it was meant, `--write` them anew."""
    expected = json.loads(golden.KEPT.read_text())
    assert [len(values) for values in expected.values()] == [golden.STEPS] * 3
    found = computed()
    for name, values in expected.items():
        wrong = [i for i, value in enumerate(values) if found[name][i] != value]
        assert wrong == [], f"{name}: first at step {wrong[0]}"


def test_they_are_worth_keeping():
    """Every one another, none of them wild; and validation stands among them."""
    for values in json.loads(golden.KEPT.read_text()).values():
        losses = [float.fromhex(value.split()[0]) for value in values]
        assert len(set(losses)) == golden.STEPS
        assert all(0 < loss < 5 for loss in losses)
        assert sum(" " in value for value in values) == 2
