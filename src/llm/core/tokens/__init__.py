"""How many tokens a request takes, before it is sent, and what answers teach about that.

`content` measures and estimates, `counting` counts as OpenAI does, `learned` corrects both ends from the usage that
comes back: the prompt's estimate, and the length of answers that nobody bounded.
"""

from __future__ import annotations

from .content import CHARACTERS_PER_TOKEN, estimate_tokens, part_text, part_tokens
from .counting import count_text, count_tokens
from .learned import OutputEstimate, PromptCalibration

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "OutputEstimate",
    "PromptCalibration",
    "count_text",
    "count_tokens",
    "estimate_tokens",
    "part_text",
    "part_tokens",
]
