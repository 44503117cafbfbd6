"""Make .venv, as `make setup` does. Any Python runs this file, even one too old."""

import sys

OLDEST = (3, 11)
NEWEST = (3, 14)


def python_problem(version):
    """Return what is wrong with this Python version, or an empty string."""
    if OLDEST <= tuple(version) <= NEWEST:
        return ""
    return (
        "Set-up needs Python 3.11 to 3.14, and this one is %d.%d. Name another, for "
        "example: make setup PYTHON=python3.12 (https://www.python.org/downloads/)"
        % tuple(version)
    )


if __name__ == "__main__":
    problem = python_problem(sys.version_info[:2])
    if problem:
        sys.exit(problem)
    from environment import main

    sys.exit(main())
