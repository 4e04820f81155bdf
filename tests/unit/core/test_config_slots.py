"""Lists make slots; a group and a model family make an account."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.config import ProviderConfig, RateLimits, SlotConfig, load_config
from llm.core.exceptions import LLMConfigurationError
from llm.utils.redact import Secret


def slots_of(**provider: object) -> tuple[SlotConfig, ...]:
    return load_config({"providers": {"p": provider}}, environ={}).providers["p"].slots


@given(data=st.data(), count=st.integers(1, 6))
def test_a_list_of_one_is_for_all_slots_and_entry_i_makes_slot_i(data: st.DataObject, count: int) -> None:
    def entries(kind: str) -> list[str]:
        length = data.draw(st.sampled_from([1, count]))
        return [f"{kind}{index}" for index in range(length)]

    keys, models, groups = entries("key"), entries("model"), entries("group")
    if len(keys) < len(groups):
        groups = groups[:1]
    slots = slots_of(api_keys=keys, models=models, quota_groups=groups)
    assert [slot.index for slot in slots] == list(range(max(len(keys), len(models), len(groups))))
    for slot in slots:
        at = slot.index
        assert slot.key == Secret(keys[0 if len(keys) == 1 else at])
        assert slot.model == models[0 if len(models) == 1 else at]
        assert slot.group == groups[0 if len(groups) == 1 else at]


@given(keys=st.integers(2, 5), models=st.integers(2, 5))
def test_lengths_that_disagree_are_named(keys: int, models: int) -> None:
    lists = {"api_keys": [f"k{i}" for i in range(keys)], "models": [f"m{i}" for i in range(models)]}
    if keys == models:
        assert len(slots_of(**lists)) == keys
        return
    with pytest.raises(LLMConfigurationError, match=f"api_keys has {keys}, models has {models}"):
        slots_of(**lists)


@given(names=st.lists(st.sampled_from("abc"), min_size=1, max_size=6))
def test_a_key_that_comes_again_shares_its_account(names: list[str]) -> None:
    slots = slots_of(api_keys=names, models="m")
    assert len({slot.account for slot in slots}) == len(set(names))
    assert all(slot.group == slot.key.fingerprint for slot in slots if slot.key)


def test_one_key_with_three_models_is_three_slots_on_one_account() -> None:
    slots = slots_of(api_keys="k", models=["a", "b", "c"], rate_limits={"requests_per_minute": 5})
    assert [(slot.model, slot.limits.requests_per_minute) for slot in slots] == [("a", 5), ("b", 5), ("c", 5)]
    assert len({slot.account for slot in slots}) == 1


def test_a_family_has_an_account_of_its_own_in_each_group() -> None:
    slots = slots_of(
        api_keys=["k1", "k2", "k3"],
        models=["haiku", "opus", "haiku"],
        quota_groups=["a", "a", "b"],
        model_families={"small": "haiku"},
        rate_limits=[{"tokens_per_day": 1}, {"tokens_per_day": 2}, {"tokens_per_day": 3}],
    )
    assert [slot.account for slot in slots] == [("a", "small"), ("a", ""), ("b", "small")]


def test_an_entry_that_states_nothing_has_its_accounts_limits() -> None:
    slots = slots_of(api_keys=["k", "k"], models=["a", "b"], rate_limits=[None, {"requests_per_day": 3}])
    assert [slot.limits.requests_per_day for slot in slots] == [3, 3]


def test_a_contradiction_names_both_entries_and_the_account() -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        slots_of(
            models="m",
            api_keys=["k1", "k2", "k3"],
            quota_groups=["a", "b", "a"],
            rate_limits=[{"requests_per_minute": n, "algorithm": "auto"} for n in (1, 2, 3)],
        )
    assert caught.value.problems[0].message == (
        "rate_limits[0] and rate_limits[2] state different requests_per_minute, but are limits of one account "
        "(group 'a'); state them once or state the same"
    )


def test_a_provider_without_keys_is_one_account() -> None:
    (slot,) = slots_of(models="m", type="local")
    assert (slot.key, slot.group, slot.family, slot.limits) == (None, "", "", RateLimits())


def test_a_provider_alone_is_read_too_and_says_when_its_lists_do_not_fit() -> None:
    provider = ProviderConfig.model_validate({"api_keys": ["a"], "models": ["m"]})
    assert provider.slots[0].key == Secret("a")
    with pytest.raises(LLMConfigurationError, match="add `models:`"):
        _ = ProviderConfig.model_validate({"api_keys": ["a"]}).slots


def test_the_type_is_the_sections_name_unless_it_is_said() -> None:
    config = load_config(
        {"providers": {"local": {"models": "m"}, "x": {"type": "local", "models": "m"}, "made_up": {"models": "m"}}},
        environ={},
    )
    assert [provider.type for provider in config.providers.values()] == ["local", "local", "made_up"]


def test_the_environments_providers_stand_in_models_made_in_code() -> None:
    config = load_config({"providers": {"p": ProviderConfig(models=("m",))}}, environ={})
    assert config.providers["p"].type == "p"
