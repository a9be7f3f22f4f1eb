"""The plugin: reads the configuration, then loads what is heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spex_proxy.plug.kinds import Ask, OpenGame
from spex_proxy_components.settings import Wanted


class Components:
    """Attention heads and MLP blocks of a Hugging Face causal language model, kept or ablated."""

    name = "components"
    needs_server = False

    def open(self, config: Mapping[str, Any], ask: Ask | None) -> OpenGame:  # noqa: ARG002 - no server
        """Load the model and measure what the ablations need. docs/components.md says what `config` may hold.

        Raises ValueError for a configuration, a model or questions that make no game; ModuleNotFoundError without
        torch and transformers.
        """
        wanted = Wanted.of(config)
        # torch and transformers take seconds to import, and the command line lists plugins without playing
        from spex_proxy_components.opening import opened  # noqa: PLC0415

        return opened(wanted)
