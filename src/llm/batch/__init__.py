"""Many requests: values, OpenAI Batch lines, the engine, and what a rerun skips."""
