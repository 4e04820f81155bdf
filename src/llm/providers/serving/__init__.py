"""The dialects from the server's side: read a request, write an answer, its events, an error. No input, no output.

The gateway, the in-process transport and `llm.testing.MockUpstream` speak through it: `openai_read`, `openai_write`,
`responses_read`, `responses_write`, `responses_stream`, `anthropic_read` and `anthropic_write`.
"""
