"""Names that telemetry goes out under: OpenTelemetry's for generative AI, and `llm.…` for what those leave out.

The conventions are those of version 1.41.0, the last release that holds them; status: development. They have moved to
a repository of their own, which has no release yet: https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SCOPE: Final = "llm"
"""Name of the tracer, the meter and the logger of events."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

# --- what a span tells of a call -----------------------------------------------------------------------------------
# Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-spans.md

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
CONVERSATION: Final = "gen_ai.conversation.id"
OUTPUT_TYPE: Final = "gen_ai.output.type"

REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_CHOICES: Final = "gen_ai.request.choice.count"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STOP: Final = "gen_ai.request.stop_sequences"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"

RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds from the call to a stream's first chunk."""

USAGE_INPUT: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT: Final = "gen_ai.usage.output_tokens"
USAGE_CACHED: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"

INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
"""Content: only where it was asked for.

Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-input-messages.json
"""

OPERATION_CHAT: Final = "chat"
OPERATION_EMBEDDINGS: Final = "embeddings"

OUTPUT_JSON: Final = "json"
OUTPUT_TEXT: Final = "text"

# --- what is not of generative AI alone ----------------------------------------------------------------------------
# Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/

ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
STATUS_CODE: Final = "http.response.status_code"

# Source: https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/
EVENT_EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"

# --- metrics -------------------------------------------------------------------------------------------------------
# Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-metrics.md

METRIC_DURATION: Final = "gen_ai.client.operation.duration"
METRIC_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
METRIC_TOKENS: Final = "gen_ai.client.token.usage"

TOKENS_TYPE: Final = "gen_ai.token.type"
TOKENS_INPUT: Final = "input"
TOKENS_OUTPUT: Final = "output"

SECONDS_BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS_BUCKETS: Final = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
)  # fmt: skip

# --- events --------------------------------------------------------------------------------------------------------
# Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-events.md

EVENT_DETAILS: Final = "gen_ai.client.inference.operation.details"

# --- ours ----------------------------------------------------------------------------------------------------------

SECTION: Final = "llm.provider"
"""Section of the configuration."""

KEY: Final = "llm.key"
"""A key's fingerprint, never the key."""

CACHED: Final = "llm.cached"
"""Whether a kept answer served, or that of an identical call; absent where neither did."""

ATTEMPTS: Final = "llm.attempts"
"""How often the call was sent."""

COST: Final = "llm.cost"
"""US dollars."""

QUEUE_WAIT: Final = "llm.queue.wait"
"""Seconds of waiting for a key, of a call or of one attempt."""

SPAN_ATTEMPT: Final = "attempt"
ATTEMPT: Final = "llm.attempt"
"""Number of an attempt, from 1."""

EVENT: Final = "llm."
"""Before the word of a decision, such as `llm.queued`."""

DETAIL: Final = "llm.detail"
"""What a decision was about, in words."""

METRIC_QUEUE_WAIT: Final = "llm.queue.wait"
METRIC_RETRIES: Final = "llm.retries"
METRIC_COST: Final = "llm.cost"

# --- providers -----------------------------------------------------------------------------------------------------

PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "azure": "azure.ai.openai",
        "bedrock": "aws.bedrock",
        "gemini": "gcp.gemini",
        "mistral": "mistral_ai",
        "vertex": "gcp.vertex_ai",
        "xai": "x_ai",
    }
)
"""Kinds of provider, and clients of `sdk:`, whose name there is another; every other kind goes by its own.

Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/registry/attributes/gen-ai.md
"""
