"""Stores for the stories: SQLite files, migrated once, copied for each test; and a vLLM for experiments."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.demo.vllm_cpu import running_vllm
from deploy.demo.vllm_install import Unavailable
from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store without rows. Copy it, don't use it."""
    path = tmp_path_factory.mktemp("store") / "spex.db"
    engine = open_store(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def store_path(empty_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_store, tmp_path / "spex.db"))


@pytest.fixture
def store(store_path: Path) -> Iterator[Engine]:
    engine = open_store(f"sqlite:///{store_path}")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def second_vllm() -> Iterator[str]:
    """Base URL of a real vLLM that computes in float32, so that it can be compared to a thousandth; ablates heads when
    asked; and runs eight requests at once."""
    ablation = ("--worker-extension-cls", "spex_proxy_vllm.ablation.Ablation")
    try:
        with running_vllm(extra=[*ablation, "--dtype", "float32", "--max-num-seqs", "8"]) as url:
            yield url
    except Unavailable as reason:
        pytest.skip(str(reason))
