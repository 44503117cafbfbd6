"""Render report blocks (findings) as HTML, terminal text, SVG or PNG."""

import random

_state = random.getstate()
import rich.style  # noqa: E402, F401 - it draws a random number when it is imported

random.setstate(_state)
