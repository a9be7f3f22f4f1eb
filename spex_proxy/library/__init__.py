"""The engine as a library call: `spex_proxy.explain(value_function, players)` for any black box gives a Study.

`asking` asks, `study` is what comes back, `terms` what it says by name, `keeping` files, `shapiq` the way over
to that library.
"""
