"""`python -m spex_proxy` is `spex-proxy`."""

from spex_proxy.cli import main

main()
