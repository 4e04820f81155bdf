"""Small things every room may use: time, redaction, server-sent events, the `src.llm` alias."""
