"""What the environment says: providers by their keys, and any field as `LLM__SECTION__FIELD`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from llm.utils.redact import Secret

from .document import read_document
from .expand import is_secret
from .faults import Fault, Path, dotted
from .scalars import FromEnvironment
from .slots import ANY_MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "LLM__"

_MODELS: Final = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-3-5-haiku-20241022",
    "openrouter": "meta-llama/llama-3.1-8b-instruct",
}
_LOCAL: Final = {"type": "local", "models": ["smollm2-135m"]}

Origins = dict[str, str]
"""Which variable set a field, by the field's path."""


def providers(environ: Mapping[str, str]) -> tuple[dict[str, Any], Origins]:
    """Return a section for each vendor whose key is there, else the local one.

    Each key gets two slots of one account: the vendor's small model, for calls that name none, and `*` for those that
    name one.
    """
    sections: dict[str, Any] = {}
    origins: Origins = {}
    for name, model in _MODELS.items():
        variable = f"{name.upper()}_API_KEY"
        keys = [Secret(key.strip()) for key in environ.get(variable, "").split(",") if key.strip()]
        if not keys:
            continue
        section = {"api_keys": [key for key in keys for _ in range(2)], "models": [model, ANY_MODEL] * len(keys)}
        origins[f"providers.{name}"] = variable
        address = f"{name.upper()}_BASE_URL"
        if environ.get(address):
            section["base_url"] = environ[address]
            origins[f"providers.{name}.base_url"] = address
        sections[name] = section
    return sections or {"local": _LOCAL}, origins


def override(tree: dict[str, Any], environ: Mapping[str, str]) -> tuple[Origins, list[Fault]]:
    """Set each field that a variable `LLM__SECTION__FIELD` names, in the order of their names.

    Section and field are found in whatever case; a number is a place in a list; text that begins with `[` or `{` is
    read as YAML.
    """
    origins: Origins = {}
    faults: list[Fault] = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        words = variable.removeprefix(PREFIX).split("__")
        if not all(words):
            faults.append(Fault(variable, "expected LLM__SECTION__FIELD"))
            continue
        path = _set(tree, words, environ[variable])
        if path is None:
            faults.append(Fault(variable, "names a part of something that has no parts, or an entry that is not there"))
        else:
            origins[dotted(path)] = variable
    return origins, faults


def _set(tree: dict[str, Any], words: list[str], text: str) -> Path | None:
    """Put the value of the text where the words lead; return the path, or None where they lead nowhere."""
    node: Any = tree
    path: Path = ()
    for at, word in enumerate(words):
        name = _name(node, word)
        if name is None:
            return None
        path = (*path, name)
        if at == len(words) - 1:
            node[name] = _value(text, path)
        elif isinstance(node, dict) and node.get(name) is None:
            node[name] = {}
        node = node[name]
    return path


def _name(node: Any, word: str) -> str | int | None:
    if isinstance(node, dict):
        known = cast("dict[str, Any]", node)
        return next((name for name in known if name.lower() == word.lower()), word.lower())
    if isinstance(node, list) and word.isdecimal() and int(word) < len(cast("list[Any]", node)):
        return int(word)
    return None


def _value(text: str, path: Path) -> Any:
    if text.startswith(("[", "{")):
        document = read_document(f"value: {text}", "")
        if not document.faults:
            return _secrets(document.tree["value"], path)
    if is_secret(path):
        return Secret(text)
    return None if text in {"", "null", "~"} else FromEnvironment(text)


def _secrets(value: Any, path: Path) -> Any:
    if isinstance(value, list):
        return [_secrets(item, (*path, index)) for index, item in enumerate(cast("list[Any]", value))]
    if isinstance(value, dict):
        return {name: _secrets(item, (*path, name)) for name, item in cast("dict[str, Any]", value).items()}
    return Secret(value) if isinstance(value, str) and is_secret(path) else value
