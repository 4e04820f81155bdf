"""Documents that were read: programs send the same few again and again, with other variables."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from graphql import DocumentNode, GraphQLError
from strawberry.extensions import SchemaExtension

from .bounds import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_KEPT: Final = 128
_LONGEST_KEPT: Final = 4_096
"""Characters. A longer one holds its texts, and does not come again."""


@dataclass(slots=True)
class Document:
    """A document that is within all bounds.

    Attributes:
        node: What was parsed.
        wrong: How it does not fit the schema; None before anyone looked.
    """

    node: DocumentNode
    wrong: list[GraphQLError] | None = None


class Documents:
    """Reads documents, and keeps the last that came."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: OrderedDict[str, Document] = OrderedDict()

    def read(self, text: str) -> Document:
        """Return what a text says.

        Raises:
            GraphQLError: It is no GraphQL, or over a bound.
        """
        document = self._kept.get(text)
        if document is not None:
            self._kept.move_to_end(text)
            return document
        document = Document(read_document(text))
        if len(text) <= _LONGEST_KEPT:
            self._kept[text] = document
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return document


class ReadBefore(SchemaExtension):
    """Gives an operation the document that was read before, and holds it against the schema once."""

    def on_parse(self) -> Iterator[None]:
        """Give it."""
        execution = self.execution_context
        execution.graphql_document = execution.context.document.node
        yield

    def on_validate(self) -> Iterator[None]:
        """Give what is wrong with it, or keep what is found."""
        execution = self.execution_context
        document: Document = execution.context.document
        execution.pre_execution_errors = document.wrong
        yield
        document.wrong = execution.pre_execution_errors or []
