from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.exceptions import LLMException, LLMServerError
from llm.providers.openrouter.models import Accepted, Nothing, find, read_models

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_recorded_list_says_what_each_model_takes(wire: Callable[[str], bytes]) -> None:
    models = read_models(wire("openrouter/models.json"))
    assert models["openai/o3-mini"].inputs == {"text", "file"}
    assert models["openai/o3-mini"].parameters >= {"reasoning", "structured_outputs"}
    assert models["openai/o3-mini-2025-01-31"] is models["openai/o3-mini"]


def test_a_variant_is_its_model_unless_it_is_listed_by_itself() -> None:
    plain, free = Accepted(frozenset({"a"})), Accepted(frozenset({"b"}))
    models = {"v/m": plain, "v/m:free": free}
    assert [find(models, name) for name in ("v/m", "v/m:nitro", "v/m:free", "v/n", "")] == [
        plain, plain, free, None, None,
    ]  # fmt: skip


def test_an_entry_that_makes_no_sense_takes_no_other_with_it() -> None:
    entries = [{"id": "m"}, {"id": 1}, None, {"id": "n", "supported_parameters": ["a", 1], "architecture": []}]
    models = read_models(orjson.dumps({"data": entries}))
    assert models == {"m": Accepted(), "n": Accepted(frozenset({"a"}))}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data":{}}', b'{"data":[1]}'])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(LLMServerError, match="makes no sense"):
        read_models(body)


_json = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["id", "canonical_slug", "supported_parameters", "architecture", "input_modalities"]), inner
        )
    ),
    max_leaves=10,
)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@given(st.lists(_json))
def test_no_list_breaks_the_reading(entries: list[object]) -> None:
    try:
        body = orjson.dumps({"data": entries})
    except TypeError:  # an integer that JSON has no room for here
        return
    try:
        read = read_models(body)
    except LLMException:
        return
    assert all(isinstance(model, Accepted) for model in read.values())


def test_who_knows_nothing_says_nothing() -> None:
    Nothing().dropped("m", ["x"])
    assert Nothing().accepted("m") is None
