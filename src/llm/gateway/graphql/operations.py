"""From an operation to its results, as GraphQL tells them, whatever they are sent over."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from graphql import GraphQLError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.execution import ExecutionResult, PreExecutionError
from strawberry.types.graphql import OperationType

from llm.core.exceptions import LLMException
from llm.gateway.codes import written_failure

from .asked import read_asked
from .documents import Documents, ReadBefore
from .errors import VALIDATION_FAILED, written
from .schema import Context, Mutation, Query, Schema, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange

SCHEMA: Final = Schema(Query, Mutation, Subscription, extensions=[ReadBefore])

_OVER_HTTP: Final = frozenset({OperationType.QUERY, OperationType.MUTATION})


class Result(NamedTuple):
    """What is sent of an operation.

    Attributes:
        payload: `data`, `errors`, or both.
        ran: Whether it came to be run; else the request itself is wrong.
    """

    payload: dict[str, Any]
    ran: bool

    @property
    def failed(self) -> bool:
        """Whether there is nothing but errors."""
        return self.payload.get("data") is None


class Operations:
    """Runs the operations of all callers.

    Attributes:
        documents: What was read of late.
    """

    def __init__(self) -> None:
        """Start with no document read."""
        self.documents: Documents = Documents()

    async def whole(self, desk: Desk, exchange: Exchange, payload: Mapping[str, Any]) -> Result:
        """Return the one result of a query or a mutation."""
        request_id = exchange.request_id.decode()
        try:
            asked = read_asked(payload)
            context = Context(desk, exchange, self.documents.read(asked.document))
            told = await SCHEMA.execute(
                asked.document,
                variable_values=asked.variables,
                context_value=context,
                operation_name=asked.operation,
                allowed_operation_types=_OVER_HTTP,
            )
        except (LLMException, GraphQLError, CannotGetOperationTypeError, InvalidOperationTypeError) as error:
            return _refused(error, request_id)
        return _result(told, exchange, request_id)

    async def pieces(self, desk: Desk, exchange: Exchange, payload: Mapping[str, Any]) -> AsyncGenerator[Result]:
        """Yield the results of a subscription, or the one of a query or a mutation."""
        request_id = exchange.request_id.decode()
        try:
            asked = read_asked(payload)
            context = Context(desk, exchange, self.documents.read(asked.document))
        except (LLMException, GraphQLError) as error:
            yield _refused(error, request_id)
            return
        results = await SCHEMA.stream(
            asked.document,
            variable_values=asked.variables,
            context_value=context,
            operation_name=asked.operation,
        )
        async with aclosing(results):
            async for told in results:
                # Deferred pieces, the other kind, are switched on by no one.
                yield _result(cast("ExecutionResult", told), exchange, request_id)


def _result(told: ExecutionResult, exchange: Exchange, request_id: str) -> Result:
    payload: dict[str, Any] = {"data": told.data}
    if told.errors:
        payload["errors"] = written(told.errors, request_id)
        exchange.error = exchange.error or told.errors[0].original_error or told.errors[0]
    ran = not isinstance(told, PreExecutionError) and (told.data is not None or _has_path(told))
    if not ran:
        del payload["data"]
    return Result(payload, ran)


def _has_path(told: ExecutionResult) -> bool:
    # What fails without a place in the answer failed before there was one: its variables do not fit.
    return any(error.path is not None for error in told.errors or ())


def _refused(error: Exception, request_id: str) -> Result:
    match error:
        case LLMException():
            told = [dict(written_failure(error, request_id))]
        case GraphQLError():
            told = written([error], request_id)
        case InvalidOperationTypeError():
            told = written([_wrong("a subscription goes over a WebSocket, at this very address")], request_id)
        case _:
            told = written([_wrong("operationName: expected the name of an operation of the document")], request_id)
    return Result({"errors": told}, ran=False)


def _wrong(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": VALIDATION_FAILED})
