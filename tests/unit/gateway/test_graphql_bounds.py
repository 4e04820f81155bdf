"""What a document may cost: what is over a bound is refused before it runs, and in few steps."""

from __future__ import annotations

import pytest
from graphql import GraphQLError, GraphQLSyntaxError, get_introspection_query
from tests.steps import counted

from llm.gateway.graphql.asked import MOST_VALUES, read_asked
from llm.gateway.graphql.bounds import (
    MOST_ALIASES,
    MOST_CHARACTERS,
    MOST_DEPTH,
    MOST_FIELDS,
    MOST_INTROSPECTION_DEPTH,
    MOST_TOKENS,
    read_document,
)

FEW = 1_000_000  # steps: three times what reading the most tokens takes


def refused(document: str) -> str:
    """Return why a document is refused, which is told after few steps."""
    with pytest.raises(GraphQLError) as error, counted() as steps:
        read_document(document)
    assert steps.count < FEW
    assert error.value.extensions == {"code": "TOO_COMPLEX"}
    return error.value.message


def nested(name: str, times: int) -> str:
    return f"{{{name}" * times + "}" * times


def test_the_usual_introspection_is_within_all_bounds() -> None:
    read_document(
        get_introspection_query(
            descriptions=True, specified_by_url=True, directive_is_repeatable=True, schema_description=True
        )
    )


def test_a_document_has_a_longest() -> None:
    assert f"{MOST_CHARACTERS} characters" in refused("{health{status}}" + " " * MOST_CHARACTERS)


def test_a_document_has_a_largest_number_of_tokens() -> None:
    assert f"{MOST_TOKENS} names" in refused("{" + "a " * MOST_TOKENS + "}")


def test_fields_nest_only_so_deep() -> None:
    read_document(nested("a", MOST_DEPTH))
    assert f"more than {MOST_DEPTH} fields within" in refused(nested("a", MOST_DEPTH + 1))


def test_fields_nest_only_so_deep_by_fragments_either() -> None:
    half = MOST_DEPTH // 2 + 1
    assert "within one another" in refused(
        f"{nested('a', half)[:-half]}{{...F}}{'}' * half} fragment F on Query {nested('b', half)}"
    )


def test_introspection_nests_only_so_deep() -> None:
    read_document("{__schema" + nested("a", MOST_INTROSPECTION_DEPTH - 1) + "}")
    assert "of the schema" in refused("{__schema" + nested("a", MOST_INTROSPECTION_DEPTH) + "}")


def test_selections_nest_only_so_deep_whatever_they_are() -> None:
    assert "nests" in refused("{... on Query" * 160 + "{a}" + "}" * 160)


def test_a_document_has_a_largest_number_of_aliases() -> None:
    read_document("{" + " ".join(f"a{n}: status" for n in range(MOST_ALIASES)) + "}")
    assert f"{MOST_ALIASES} aliases" in refused("{" + " ".join(f"a{n}: status" for n in range(MOST_ALIASES + 1)) + "}")


def test_aliases_count_as_often_as_fragments_bring_them() -> None:
    assert "aliases" in refused(
        "{...A ...A ...A} fragment A on Query {...B ...B ...B} fragment B on Query {a: status b: status}"
    )


def test_a_document_has_a_largest_number_of_fields() -> None:
    read_document("{" + "status " * MOST_FIELDS + "}")
    assert f"{MOST_FIELDS} fields" in refused("{" + "status " * (MOST_FIELDS + 1) + "}")


def test_fragments_that_double_each_other_are_refused_without_being_expanded() -> None:
    doubling = " ".join(f"fragment F{n} on Query {{...F{n + 1} ...F{n + 1}}}" for n in range(15))
    assert "fields" in refused(f"{{...F0}} {doubling} fragment F15 on Query {{status}}")


def test_fields_of_the_schema_are_counted_by_themselves() -> None:
    assert "fields of the schema" in refused(
        "{__schema{" + "types{" + "name " * 249 + "} " + "types{" + "name " * 251 + "}}}"
    )


def test_a_fragment_that_holds_itself_ends_the_walk() -> None:
    read_document("{...A} fragment A on Query {...B} fragment B on Query {...A ...Unknown}")


def test_what_is_no_graphql_is_told_as_such() -> None:
    for text in ("{", "query {a: }", '{a(b: "c)}'):
        with pytest.raises(GraphQLSyntaxError):
            read_document(text)


def test_variables_have_a_largest_number_of_values() -> None:
    read_asked({"query": "{a}", "variables": {"a": [1] * (MOST_VALUES - 2)}})
    for variables in ({"a": [1] * MOST_VALUES}, {"a": [[[{"b": [1] * MOST_VALUES}]]]}):
        with pytest.raises(GraphQLError, match=f"more than {MOST_VALUES} values"):
            read_asked({"query": "{a}", "variables": variables})
