"""The extension points. `kinds.py` is the whole contract; `load.py` finds and checks plugins."""
