"""Entry point of `python -m striate`, the same as the command `striate`."""

import sys

from striate.cli.start import start

sys.exit(start())
