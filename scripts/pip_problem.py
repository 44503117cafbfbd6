"""Explain a failure of pip in one sentence that includes the solution."""

from __future__ import annotations

import re

# The first that matches counts: without a network pip also says that nothing matches.
SIGNS = {
    "disk": r"No space left on device|Errno 28|Disk quota exceeded|WinError 112",
    "venv": r"ensurepip is not available|No module named '?(venv|ensurepip|pip)\b",
    "certificate": r"CERTIFICATE_VERIFY_FAILED|SSLError|SSL: ",
    "network": r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|"
    r"ReadTimeout|Connection (refused|reset|broken|aborted)|Network is unreachable|"
    r"name resolution|Max retries|connection timed out|fetch URL|offline",
    "hash": r"DO NOT MATCH THE HASHES|Hashes are required",
    "missing": r"No matching distribution|not find a version|HTTP error 40[34]",
    "permission": r"Permission denied|WinError 5\b|Read-only file system",
}
AGAIN = "then run make setup again"


def problem_kind(log: str) -> str:
    """Return the kind of error in pip's output, such as `network`, or `other`."""
    for kind, sign in SIGNS.items():
        if re.search(sign, log, re.IGNORECASE):
            return kind
    return "other"


def problem_sentence(
    log: str, what: str, *, place: str, python: str = "3.11", gigabytes: float = 2.5
) -> str:
    """Return a sentence with the reason of a failed installation and the solution.

    Args:
        log: Output of pip or venv.
        what: Name of the package or step that failed.
        place: The package index that pip used, as a description or as a URL.
        python: The version of Python, for the name of Debian's package.
        gigabytes: Free disk space that set-up needs.
    """
    wanted = re.search(r"No matching distribution found for (\S+)", log)
    package = wanted[1] if wanted else what
    other = " (make setup TORCH_INDEX=URL)" if "://" in place else ""
    sentences = {
        "disk": f"The disk is full: free {gigabytes:g} GB, also where temporary files "
        f"go (TMPDIR), {AGAIN}.",
        "venv": "This Python has no complete venv module: install it (Debian and "
        f"Ubuntu: apt install python{python}-venv), {AGAIN}.",
        "certificate": f"The certificate of {place} is not trusted here: point "
        f"PIP_CERT to your network's certificate file, {AGAIN}.",
        "network": f"No connection to {place}: check the network and the proxy "
        f"(HTTPS_PROXY) or name another index{other}, {AGAIN}.",
        "hash": f"A file of {what} from {place} is not the one whose hash "
        f"requirements/ lists: name another index{other}, {AGAIN}.",
        "missing": f"There is no {package} for this system and Python {python} at "
        f"{place}: name another index{other} or another Python "
        f"(make setup PYTHON=python3.12), {AGAIN}.",
        "permission": f"Files of {what} cannot be written: check who owns .venv and "
        f"this folder, {AGAIN}.",
        "other": f"Set-up stopped at {what}: {last_error(log)}",
    }
    return sentences[problem_kind(log)]


def last_error(log: str) -> str:
    """Return the last line that starts with ERROR, or else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no output"])[-1]
