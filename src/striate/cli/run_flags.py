"""Flags of commands that read a run with a network of the user's own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from striate.run.run import Run

TRUST_FLAG = {
    "--trust": "execute the network code of a run folder from another machine; it is "
    "then trusted in later commands too",
}
NETWORK_FLAGS = {
    "--model NETWORK": "network to use with the weights of the run: FILE.py:CLASS "
    "(executes the file), a sketch, or a name (default: the network of the run)",
    **TRUST_FLAG,
}


def open_run(options: argparse.Namespace) -> Run:
    """Return the run of a command line, with the network of `--model` if given.

    Raises:
        SettingError: The value of `--model` is a run, not a network.
        RunError: The run does not exist.
    """
    from striate.core.errors import SettingError
    from striate.run.bundle_run import open_run_or_bundle
    from striate.run.layout import existing_run

    if options.model and existing_run(options.model):
        what = (
            f"--model needs a network such as net.py:Net, got the run {options.model}"
        )
        fix = "give the run as the first argument, without --model"
        raise SettingError(what, where="--model", fix=fix)
    return open_run_or_bundle(
        options.run_folder, model=options.model, trust=options.trust
    )
