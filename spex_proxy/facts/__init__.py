"""The nouns. Frozen dataclasses; standard library and numpy only, no I/O, no clock."""
