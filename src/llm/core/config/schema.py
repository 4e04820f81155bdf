"""The JSON Schema by which editors complete and check `llm.yaml`."""

from __future__ import annotations

from typing import Any

from .model import LLMConfig


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `llm.yaml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **LLMConfig.model_json_schema(by_alias=True),
        "title": "llm-manifold configuration",
        "description": "Everything that llm.yaml may say.",
    }
