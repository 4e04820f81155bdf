"""What a document may cost: it is measured as it is written, fragments expanded, before anything of it is looked up.

A document of a few bytes can name many times as much: by nesting, by aliases, by fragments that hold fragments. What is
over a bound is refused by one walk over what was parsed, which looks at each fragment once.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLSyntaxError,
    InlineFragmentNode,
    Lexer,
    OperationDefinitionNode,
    Source,
    TokenKind,
    parse,
)

from .errors import too_complex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphql import DocumentNode, SelectionNode, SelectionSetNode

MOST_CHARACTERS: Final = 32_768
"""Of a document; long prompts belong into variables, which are not read letter by letter."""
MOST_TOKENS: Final = 1_000
"""Names, values and brackets of a document; the usual introspection has 163."""
MOST_DEPTH: Final = 8
"""Fields within one another; the schema's own deepest is 3."""
MOST_INTROSPECTION_DEPTH: Final = 16
"""The same from `__schema` or `__type` on; the usual introspection has 15."""
MOST_ALIASES: Final = 16
"""Fields under another name, each as often as fragments bring it."""
MOST_FIELDS: Final = 200
"""Fields, each as often as fragments bring it."""
MOST_INTROSPECTION_FIELDS: Final = 500
"""The same from `__schema` or `__type` on; the usual introspection has 229."""
_MOST_NESTED: Final = 150
"""Selections and fragments within one another, so that the walk needs little of the stack."""


class _Size(NamedTuple):
    fields: int = 0
    aliases: int = 0
    depth: int = 0
    introspection_fields: int = 0
    introspection_depth: int = 0


def read_document(text: str) -> DocumentNode:
    """Return a document that is within all bounds; whether it fits the schema is not looked at.

    Raises:
        GraphQLError: It is over a bound, with the code `TOO_COMPLEX`; says which, and what to do.
        GraphQLSyntaxError: It is no GraphQL.
    """
    if len(text) > MOST_CHARACTERS:
        raise too_complex(f"the document has more than {MOST_CHARACTERS} characters; put long texts into variables")
    try:
        document = parse(text, max_tokens=MOST_TOKENS)
    except GraphQLSyntaxError:
        if not _has_too_many_tokens(text):
            raise
        raise too_complex(
            f"the document has more than {MOST_TOKENS} names, values and brackets; ask for less at once"
        ) from None
    walk = _Walk(document)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            _check(walk.size(definition.selection_set))
    return document


def _has_too_many_tokens(text: str) -> bool:
    try:
        return any(islice(_tokens(text), MOST_TOKENS, None))
    except GraphQLSyntaxError:
        return False


def _tokens(text: str) -> Iterator[bool]:
    lexer = Lexer(Source(text))
    while lexer.advance().kind is not TokenKind.EOF:
        yield True


def _check(size: _Size) -> None:
    for name, value, most in (
        ("fields within one another", size.depth, MOST_DEPTH),
        ("fields of the schema within one another", size.introspection_depth, MOST_INTROSPECTION_DEPTH),
        ("aliases", size.aliases, MOST_ALIASES),
        ("fields", size.fields, MOST_FIELDS),
        ("fields of the schema", size.introspection_fields, MOST_INTROSPECTION_FIELDS),
    ):
        if value > most:
            raise too_complex(
                f"the operation has more than {most} {name}, counting those that fragments bring; ask for less at once"
            )


class _Walk:
    """Measures selections; a fragment once, however often it is brought."""

    def __init__(self, document: DocumentNode) -> None:
        self._fragments = {
            definition.name.value: definition.selection_set
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._sizes: dict[str, _Size] = {}
        self._nested = 0

    def size(self, selected: SelectionSetNode | None) -> _Size:
        if selected is None:
            return _Size()
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise too_complex(f"the document nests more than {_MOST_NESTED} selections; ask for less at once")
        sizes = [self._of(selection) for selection in selected.selections]
        self._nested -= 1
        return _Size(
            sum([size.fields for size in sizes]),
            sum([size.aliases for size in sizes]),
            max([size.depth for size in sizes], default=0),
            sum([size.introspection_fields for size in sizes]),
            max([size.introspection_depth for size in sizes], default=0),
        )

    def _of(self, selection: SelectionNode) -> _Size:
        if isinstance(selection, FieldNode):
            return self._field(selection)
        if isinstance(selection, FragmentSpreadNode):
            return self._fragment(selection.name.value)
        return self.size(selection.selection_set if isinstance(selection, InlineFragmentNode) else None)

    def _field(self, field: FieldNode) -> _Size:
        within = self.size(field.selection_set)
        fields, depth = within.fields + 1, within.depth + 1
        aliases = within.aliases + (field.alias is not None)
        if field.name.value.startswith("__"):  # the schema itself, which has bounds of its own
            return _Size(0, aliases, 0, fields, depth)
        return _Size(fields, aliases, depth, within.introspection_fields, within.introspection_depth)

    def _fragment(self, name: str) -> _Size:
        size = self._sizes.get(name)
        if size is None:
            self._sizes[name] = _Size()  # one that holds itself is refused later, for that
            size = self._sizes[name] = self.size(self._fragments.get(name))
        return size
