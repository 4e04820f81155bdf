"""The dialects from the server's side: read a request, write an answer, its events, an error. No input, no output.

The gateway, the in-process transport and `llm.testing.MockUpstream` speak through it: `openai_read`, `openai_write`,
`openai_embeddings`, `responses_read`, `responses_write`, `responses_stream`, `anthropic_read`, `anthropic_replay` and
`anthropic_write`.
"""
