"""What is installed under which name; apart from the front door, for looking that up costs more than importing it."""

from __future__ import annotations

from importlib import metadata

_NAME = "llm-manifold"
_NAMESAKE = "llm"


def _version() -> str:
    try:
        return metadata.version(_NAME)
    except metadata.PackageNotFoundError:  # a checkout on the path
        return "0+checkout"


__version__ = _version()


def namesake_notice() -> str | None:
    """Say what is wrong where another program of the import name `llm` is installed as well.

    Returns:
        One sentence with the remedy; None when there is no such program.
    """
    try:
        version = metadata.version(_NAMESAKE)
    except metadata.PackageNotFoundError:
        return None
    return (
        f"The distribution `{_NAMESAKE}` {version} is installed as well and has the same import name as `{_NAME}`, so "
        f"their files overwrite each other: keep one of them in this environment "
        f"(`pip uninstall {_NAMESAKE}`, then `pip install --force-reinstall --no-deps {_NAME}`)."
    )
