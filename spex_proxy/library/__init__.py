"""The engine as a library call: `spex_proxy.explain(value_function, players)` for any black box gives a Study.

`asking` asks, `zoom` goes from coarse to fine players, `study` is what comes back, `terms` and `answers` what it says
by name, `keeping` files, `shapiq` the way over to that library.
"""
