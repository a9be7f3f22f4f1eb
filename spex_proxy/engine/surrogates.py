"""Every way to make a spectrum of masks and values, by name: (rows, recipe) -> spectrum and out-of-sample predictions.

    stack, proxyspex, spex       the methods that a recipe can name (conclude.METHODS)
    gaussian                     the Walsh-kernel Gaussian process alone
    order1, order2               the lasso over single players, over pairs too
    kernelshap, lime, contextcite    what others do, on the masks that they are given (baselines)

All take any masks but `spex`, which reads its own design only.
"""

from __future__ import annotations

from functools import partial

from spex_proxy.engine import baselines, stack
from spex_proxy.engine.conclude import METHODS, Method, by_seed
from spex_proxy.engine.members import Gaussian

SURROGATES: dict[str, Method] = {
    **METHODS,
    "gaussian": by_seed(partial(stack.fit, kinds=(Gaussian,))),
    **{name: by_seed(fit) for name, fit in baselines.SURROGATES.items()},
}
