"""Sampling rules: `read` a file, `match` an exchange, `keep` the newest version that makes sense."""
