"""Whether this server ablates heads: asked of its workers once, when it starts."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from spex_proxy_vllm.heads import Ready, Refused

EXTENSION = "spex_proxy_vllm.ablation.Ablation"
HOW = f"start vLLM with --enforce-eager --worker-extension-cls {EXTENSION}"
OFF = f"per-request head ablation is off here: {HOW} (eager mode costs every request of the server time)"


async def prepared(client: Any) -> Ready | Refused:
    """Of an engine client. Without the flag no worker is asked."""
    config = getattr(client, "vllm_config", None)
    if config is None or config.parallel_config.worker_extension_cls != EXTENSION:
        return Refused(OFF)
    secret = secrets.token_hex(16)
    told = await client.collective_rpc("spex_ablation", args=(secret,))
    refused = [each["refused"] for each in told if "refused" in each]
    if refused or not told:
        why = refused[0] if refused else "no worker answered"
        logging.getLogger("vllm").warning("spex: %s", why)
        return Refused(why)
    return Ready(told[0]["n_layers"], told[0]["n_heads"], secret)
