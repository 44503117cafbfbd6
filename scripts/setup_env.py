"""Create the environment .venv, as `make setup` does; works even in an old Python."""

import sys

OLDEST = (3, 11)
NEWEST = (3, 14)


def python_problem(version):
    """Return an error message for an unsupported Python version, or an empty string."""
    if OLDEST <= tuple(version) <= NEWEST:
        return ""
    return (
        "Set-up needs Python 3.11 to 3.14, and this one is %d.%d. Use another, for "
        "example: make setup PYTHON=python3.12 (https://www.python.org/downloads/)"
        % tuple(version)
    )


if __name__ == "__main__":
    problem = python_problem(sys.version_info[:2])
    if problem:
        sys.exit(problem)
    from environment import main

    sys.exit(main())
