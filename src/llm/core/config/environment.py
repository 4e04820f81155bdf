"""What the environment says: providers by their keys, and any field as `LLM__SECTION__FIELD`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm.utils.redact import Secret

from .document import read_document
from .expand import is_secret
from .faults import Fault, Path, dotted
from .scalars import FromEnvironment, Value, is_list, is_mapping
from .slots import ANY_MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "LLM__"

_MODELS: Final = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-3-5-haiku-20241022",
    "openrouter": "meta-llama/llama-3.1-8b-instruct",
}
_LOCAL_MODEL: Final = "smollm2-135m"

Origins = dict[str, str]
"""Which variable set a field, by the field's path."""


def providers(environ: Mapping[str, str]) -> tuple[dict[str, Value], Origins]:
    """Return a section for each vendor whose key is there, else the local one.

    Each key gets two slots of one account: the vendor's small model, for calls that name none, and `*` for those that
    name one.
    """
    sections: dict[str, Value] = {}
    origins: Origins = {}
    for name, model in _MODELS.items():
        variable = f"{name.upper()}_API_KEY"
        keys = [Secret(key.strip()) for key in environ.get(variable, "").split(",") if key.strip()]
        if not keys:
            continue
        twice = [key for key in keys for _ in range(2)]
        section: dict[str, Value] = {"api_keys": twice, "models": [model, ANY_MODEL] * len(keys)}
        origins[f"providers.{name}"] = variable
        address = f"{name.upper()}_BASE_URL"
        if environ.get(address):
            section["base_url"] = environ[address]
            origins[f"providers.{name}.base_url"] = address
        sections[name] = section
    return sections or {"local": {"models": [_LOCAL_MODEL]}}, origins


def override(tree: dict[str, Value], environ: Mapping[str, str]) -> tuple[Origins, list[Fault]]:
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


def _set(node: Value, words: list[str], text: str, path: Path = ()) -> Path | None:
    """Put the value of the text where the words lead; return the path, or None where they lead nowhere."""
    name = _name(node, words[0])
    if name is None:
        return None
    path = (*path, name)
    if len(words) == 1:
        node[name] = _value(text, path)
        return path
    if isinstance(name, str) and node.get(name) is None:
        node[name] = {}
    return _set(node[name], words[1:], text, path)


def _name(node: Value, word: str) -> str | int | None:
    if is_mapping(node):
        return next((name for name in node if name.lower() == word.lower()), word.lower())
    if is_list(node) and word.isdecimal() and int(word) < len(node):
        return int(word)
    return None


def _value(text: str, path: Path) -> Value:
    if text.startswith(("[", "{")):
        document = read_document(f"value: {text}", "")
        if not document.faults:
            return _secrets(document.tree["value"], path)
    if is_secret(path):
        return Secret(text)
    return None if text in {"", "null", "~"} else FromEnvironment(text)


def _secrets(value: Value, path: Path) -> Value:
    if is_list(value):
        return [_secrets(item, (*path, index)) for index, item in enumerate(value)]
    if is_mapping(value):
        return {name: _secrets(item, (*path, name)) for name, item in value.items()}
    return Secret(value) if isinstance(value, str) and is_secret(path) else value
