"""Stat logger: the engine's load after every step, onto the board."""

from __future__ import annotations

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from spex_proxy_vllm.board import BOARD


class StepStats(StatLoggerBase):  # type: ignore[misc]  # vLLM is not there when types are checked
    """vLLM makes one an engine. Its fields are no stable interface of vLLM's: what is missing is 0."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._engine = engine_index

    def record(self, scheduler_stats: Any, iteration_stats: Any, *rest: Any, **more: Any) -> None:
        if scheduler_stats is not None:
            BOARD.record(
                self._engine,
                int(getattr(scheduler_stats, "num_running_reqs", 0)),
                int(getattr(scheduler_stats, "num_waiting_reqs", 0))
                + int(getattr(scheduler_stats, "num_skipped_waiting_reqs", 0)),
                float(getattr(scheduler_stats, "kv_cache_usage", 0.0)),
            )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""
