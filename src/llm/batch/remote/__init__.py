"""The vendors' own batch APIs: a file of rows goes over in parts, and its answers come back in a day, at half price.

`run` reads and plans, `work` sends the parts and collects them, `openai` and `anthropic` speak to the vendors, and
`ledger` notes each step beside the output, so that a run that is killed goes on without sending anything twice.
"""
