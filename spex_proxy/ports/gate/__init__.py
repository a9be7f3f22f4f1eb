"""May background work ask the model now? `rules` and `pace` decide (pure), `server_load` reads vLLM's metrics,
`gate` waits, watches and aborts. Whatever is not known counts as busy.
"""
