"""Single YAML values, read from a document or from an environment variable."""

from __future__ import annotations

from typing import Any, TypeGuard

import yaml

Value = Any
"""What a file may hold, before anything is checked: a mapping, a list or a scalar."""


class FromEnvironment(str):
    """Text that an environment variable or a secret's file gave.

    A shell has no types, so such a text may stand for a number or a switch where the field wants one; it never becomes
    a list or a mapping.
    """

    __slots__ = ()


class _Scalars(yaml.SafeLoader):
    """The safe types of YAML 1.1, one node at a time."""

    def __init__(self) -> None:
        """Start without a document."""
        super().__init__("")


def construct(node: yaml.ScalarNode) -> Value:
    """Return the value of a scalar node.

    Raises:
        yaml.constructor.ConstructorError: The node has a tag that is not one of the safe types.
        ValueError: The text looks like a date or a number and is none.
    """
    return _Scalars().construct_object(node)  # pyright: ignore[reportUnknownMemberType] # bare in its stubs


def resolve(text: str) -> Value:
    """Return what the text would be as a plain scalar in a YAML file: a number, a switch, a date, nothing, or text."""
    tag = str(_Scalars().resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call] # as above
    try:
        return construct(yaml.ScalarNode(tag, text))
    except (ValueError, yaml.YAMLError):
        return text


def is_mapping(value: object) -> TypeGuard[dict[str, Value]]:
    """Tell whether the value is a mapping."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Value]]:
    """Tell whether the value is a list."""
    return isinstance(value, list)
