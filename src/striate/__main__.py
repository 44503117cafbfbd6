"""Entry point of `python -m striate`, the same as the command `striate`."""

import sys

from striate.cli.main import main

sys.exit(main())
