"""From lists to slots: which key serves which model, and on whose limits."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from llm.utils.redact import Secret

from .faults import Fault, meant
from .limits import RateLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


T = TypeVar("T")

ANY_MODEL = "*"
LISTS = ("api_keys", "models", "rate_limits", "quota_groups")


class Lists(Protocol):
    """What a provider's section says about its slots."""

    @property
    def api_keys(self) -> Sequence[Secret]:
        """Key i."""
        ...

    @property
    def models(self) -> Sequence[str]:
        """Model i."""
        ...

    @property
    def rate_limits(self) -> Sequence[RateLimits]:
        """Limits i."""
        ...

    @property
    def quota_groups(self) -> Sequence[str]:
        """Group i."""
        ...

    @property
    def model_families(self) -> Mapping[str, Sequence[str]]:
        """Models by family."""
        ...


@dataclass(frozen=True, slots=True)
class SlotConfig:
    """Entry `index` of a provider's lists.

    Attributes:
        index: Place in the lists, from 0.
        key: The key; None for a provider without keys.
        model: Its model; `*` takes any.
        limits: Limits of its account.
        group: Name of those who share limits: the quota group, else the key's fingerprint, else "".
        family: The model's family within the group; "" for models that share the group's limits.
    """

    index: int
    key: Secret | None
    model: str
    limits: RateLimits
    group: str
    family: str

    @property
    def account(self) -> tuple[str, str]:
        """What limits are counted on: group and family."""
        return self.group, self.family


def broadcast(provider: Lists) -> tuple[tuple[SlotConfig, ...], list[Fault]]:
    """Make the slots of a provider's lists.

    Returns:
        The slots, and what keeps the lists from making any; fields are named relative to the provider.
    """
    faults = [*_lengths(provider), *_models(provider), *_families(provider)]
    if faults:
        return (), faults
    slots = _slots(provider)
    faults = [*_one_group_a_key(slots), *_one_limit_an_account(provider, slots)]
    return _with_account_limits(slots), faults


def _lengths(provider: Lists) -> Iterator[Fault]:
    lengths = {name: len(getattr(provider, name)) for name in LISTS}
    several = {name: length for name, length in lengths.items() if length > 1}
    if len(set(several.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in several.items())
        advice = "entry i of each list makes slot i: give lists of the same length, or of one entry for all"
        yield Fault(next(iter(several)), f"the lists disagree: {told}; {advice}")


def _models(provider: Lists) -> Iterator[Fault]:
    if not provider.models:
        yield Fault("models", "no models; add `models:` with the model of each slot, or one for all")


def _families(provider: Lists) -> Iterator[Fault]:
    known = set(provider.models)
    seen: dict[str, str] = {}
    for family, models in provider.model_families.items():
        for index, model in enumerate(models):
            field = f"model_families.{family}[{index}]"
            if model in seen:
                yield Fault(
                    field,
                    f"the model is in the family {seen[model]!r} already; a model has one family",
                    needs=("models",),
                )
            elif model not in known and ANY_MODEL not in known:
                yield Fault(
                    field, f"no slot has this model; add it to `models`{meant(model, known)}", needs=("models",)
                )
            seen.setdefault(model, family)


def _slots(provider: Lists) -> tuple[SlotConfig, ...]:
    count = max(len(getattr(provider, name)) for name in LISTS)
    family_of = {model: family for family, models in provider.model_families.items() for model in models}

    return tuple(
        SlotConfig(
            index=index,
            key=(key := _at(provider.api_keys, index)),
            model=(model := _at(provider.models, index) or ANY_MODEL),
            limits=_at(provider.rate_limits, index) or RateLimits(),
            group=_at(provider.quota_groups, index) or (key.fingerprint if key else ""),
            family=family_of.get(model, ""),
        )
        for index in range(count)
    )


def _one_group_a_key(slots: tuple[SlotConfig, ...]) -> Iterator[Fault]:
    first: dict[Secret, SlotConfig] = {}
    for slot in slots:
        if slot.key is None:
            continue
        other = first.setdefault(slot.key, slot)
        if other.group != slot.group:
            told = (
                f"slots {other.index} and {slot.index} have the same key but the groups {other.group!r}, {slot.group!r}"
            )
            yield Fault(f"quota_groups[{slot.index}]", f"{told}; a key draws on one group", needs=("api_keys",))


def _one_limit_an_account(provider: Lists, slots: tuple[SlotConfig, ...]) -> Iterator[Fault]:
    if len(provider.rate_limits) > 1:
        for of_account in _accounts(slots).values():
            stating = [slot for slot in of_account if slot.limits.stated()]
            for slot in stating[1:]:
                if slot.limits != stating[0].limits:
                    yield _disagreement(stating[0], slot)


def _disagreement(one: SlotConfig, other: SlotConfig) -> Fault:
    names = RateLimits.model_fields
    differing = [name for name in names if getattr(one.limits, name) != getattr(other.limits, name)]
    family = f", model family {one.family!r}" if one.family else ""
    told = f"rate_limits[{one.index}] and rate_limits[{other.index}] state different {' and '.join(differing)}"
    why = f"but are limits of one account (group {one.group!r}{family})"
    return Fault(
        f"rate_limits[{other.index}]",
        f"{told}, {why}; state them once or state the same",
        needs=(*LISTS, "model_families"),
    )


def _with_account_limits(slots: tuple[SlotConfig, ...]) -> tuple[SlotConfig, ...]:
    """Give each slot what its account states, where its own entry states nothing."""
    limits = {
        account: next((slot.limits for slot in of_account if slot.limits.stated()), RateLimits())
        for account, of_account in _accounts(slots).items()
    }
    return tuple(
        SlotConfig(slot.index, slot.key, slot.model, limits[slot.account], slot.group, slot.family) for slot in slots
    )


def _accounts(slots: tuple[SlotConfig, ...]) -> dict[tuple[str, str], list[SlotConfig]]:
    accounts: defaultdict[tuple[str, str], list[SlotConfig]] = defaultdict(list)
    for slot in slots:
        accounts[slot.account].append(slot)
    return accounts


def _at(values: Sequence[T], index: int) -> T | None:
    if not values:
        return None
    return values[0] if len(values) == 1 else values[index]
