"""docs/api.md does what it says: its examples run, and no code or path is missing from it."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import sqlalchemy as sa

from spex_proxy.store import outbox
from spex_proxy.store.tables import outbox as table
from spex_proxy.web.api import PREFIX
from spex_proxy.web.errors import CODES
from tests.contract.api.serving import Api, explain

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="needs bash and curl")
def test_every_curl_example_runs(api: Api, tmp_path: Path) -> None:
    examples = "".join(blocks("sh"))
    script = re.sub(r"^SPEX=.*$", f"SPEX={api.url}{PREFIX}", examples, flags=re.MULTILINE)
    script = re.sub(r"^ID=.*$", f"ID={api.filled.upstream_id}", script, flags=re.MULTILINE)
    script = script.replace("python3", sys.executable)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"export NO_PROXY=127.0.0.1\n{script}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "event: end" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"evidence.csv", "evidence.npz", "report.html"}


def test_every_path_and_error_code_is_in_it(api: Api) -> None:
    paths = api.http.get(f"{api.url}{PREFIX}/openapi.json").json()["paths"]
    shell = "".join(blocks("sh"))
    for path in paths:
        if path.startswith(PREFIX):
            told = re.sub(r"\{\w+\}", r"\\$(ID|JOB|CASE|RETEST)", path.removeprefix(PREFIX))
            assert re.search(rf"\$SPEX{told}\b", shell), path
    assert [code for code in CODES if f"`{code}`" not in PAGE] == []


def test_the_python_example_runs(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that it waits for is done as soon as it is made."""
    enqueue = outbox.enqueue

    def at_once(conn: sa.Connection, **options: object) -> str:
        job_id = enqueue(conn, **options)  # type: ignore[arg-type]
        made = explain(conn, api.make, str(options["exchange_id"]))
        done = {"state": "done", "explanation_id": made}
        conn.execute(sa.update(table).where(table.c.id == job_id).values(**done))
        return job_id

    monkeypatch.setattr(outbox, "enqueue", at_once)
    (example,) = blocks("python")
    with redirect_stdout(io.StringIO()) as said:
        exec(example.replace("http://127.0.0.1:8081", api.url), {})
    assert "99 of 64" in said.getvalue()
    assert "Be br" in said.getvalue()
