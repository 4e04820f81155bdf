"""Errors of a provider's own code, which may be anybody's, as errors of ours."""

from __future__ import annotations

from typing import Final

from .exceptions import LLMException, LLMServerError


class _ForeignAsOurs:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if error is not None and (failure := ours(error)) is not error:
            raise failure from error


FOREIGN_AS_OURS: Final = _ForeignAsOurs()
"""A scope that raises what a provider's code should not raise as an error of ours, with its cause."""


def as_ours(error: Exception) -> LLMServerError:
    """Return what stands for an error that a provider's code should not raise."""
    return LLMServerError(f"the provider's code failed with {type(error).__name__}: {error}", retryable=False)


def ours(error: BaseException) -> BaseException:
    """Return an error as it is where a provider's code may raise it, else what stands for it."""
    return as_ours(error) if isinstance(error, Exception) and not isinstance(error, LLMException) else error
