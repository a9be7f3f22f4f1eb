"""spex_proxy: causal explanations of production LLM outputs.

Read `flows/relay.py` (one request) and `flows/explain.py` (one explanation)
first; `facts/` holds the nouns that they speak of.
"""

__version__ = "0.1.0"
