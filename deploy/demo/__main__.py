"""`make demo`: a real vLLM, the proxy, a worker and a store; real questions; their explanations.

make demo                           stays up afterwards, to play with; Ctrl-C stops all of it
make demo ARGS=--once               ends by itself, exit code 0 if everything was as it should be
make demo UPSTREAM=http://host:8000 uses a vLLM that runs already
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from openai import OpenAI
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import Engine

from deploy.demo.questions import QUESTIONS, Question
from deploy.demo.vllm_cpu import running_vllm
from deploy.demo.vllm_install import Unavailable
from spex_proxy.facts.explanation import Summary
from spex_proxy.facts.review import Case
from spex_proxy.flows.verify import verify
from spex_proxy.plug.load import Plugins
from spex_proxy.store import browse, cases, explanations
from spex_proxy.store.connect import open_store, reading
from spex_proxy.study.terminal import explanation_panel
from spex_proxy.study.view import make_view

HOME = Path("var/demo")
STORE = f"sqlite:///{HOME / 'spex.db'}"
BUDGET = 192
START_S = 60
EXPLAIN_S = 1500
"""All explanations together; a minute each on two idle cores, far more on a busy machine."""

console = Console(width=min(120, Console().width) if Console().is_terminal else 110)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--once", action="store_true", help="end after the explanations instead of staying up")
    parser.add_argument("--port", type=int, default=8080, help="relay port (default 8080)")
    parser.add_argument("--admin-port", type=int, default=8081, help="second port (default 8081)")
    options = parser.parse_args()
    upstream = os.environ.get("UPSTREAM", "")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with contextlib.nullcontext(upstream) if upstream else running_vllm() as server:
            run(server.rstrip("/"), options)
    except Unavailable as reason:
        sys.exit(f"\n{reason}")
    except KeyboardInterrupt:
        console.print("[dim]stopped[/dim]")


def run(server: str, options: argparse.Namespace) -> None:
    """The whole demo against a vLLM that runs."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    with proxy(server, options):
        base_url = f"http://127.0.0.1:{options.port}/v1"
        client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
        model = client.models.list().data[0].id
        tokens_before = prompt_tokens(server)
        console.rule("an app asks, through the proxy")
        console.print(f"[dim]OpenAI(base_url={base_url!r}), model {model}[/dim]")
        relayed = sum(ask(client, model, question) for question in QUESTIONS)
        store = open_store(STORE, create=False)
        done = follow(store, len(QUESTIONS))
        checks = [show(store, question, summary) for question, summary in zip(QUESTIONS, done, strict=True)]
        balance(store, prompt_tokens(server) - tokens_before, relayed, done, checks)
        case = send_to_review(store, done)
        where_next(done[0], case, server, options)
        if not options.once:
            console.print("[bold]Everything is still running. Ctrl-C stops it.[/bold]")
            signal.pause()


@contextlib.contextmanager
def proxy(server: str, options: argparse.Namespace) -> Iterator[None]:
    """`spex-proxy up`, as an operator would start it; its log goes to a file."""
    log = (HOME / "spex-proxy.log").open("wb")
    environment = {**os.environ, "SPEX_BUDGET": str(BUDGET)}
    process = subprocess.Popen(
        [
            sys.executable, "-m", "spex_proxy", "up", "--upstream", server, "--store", STORE, "--explain-rate", "1",
            "--port", str(options.port), "--admin-port", str(options.admin_port),
        ],
        stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        wait_ready(process, f"http://127.0.0.1:{options.admin_port}/readyz", Path(log.name))
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"spex-proxy did not start; its log says:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def ask(client: OpenAI, model: str, question: Question) -> int:
    """Send one question as an app does; returns the prompt tokens that the server billed."""
    console.print(f"\n[bold]{question.title}[/bold]")
    body = question.request(model)
    if not question.is_streamed:
        answer = client.chat.completions.create(**body)  # type: ignore[call-overload]
        console.print(answer.choices[0].message.content, style="italic", highlight=False)
        return int(answer.usage.prompt_tokens)
    usage = 0
    stream = client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    for chunk in stream:
        usage = chunk.usage.prompt_tokens if chunk.usage else usage
        for choice in chunk.choices:
            console.print(choice.delta.content or "", style="italic", end="", highlight=False)
    console.print()
    return usage


def follow(store: Engine, expected: int) -> list[Summary]:
    """Watch the worker until every question is explained; oldest first."""
    console.rule("the worker explains, in the background")
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(),
        TextColumn("{task.completed} of at most {task.total} masks"), TimeElapsedColumn(), console=console,
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}
    deadline = time.monotonic() + EXPLAIN_S
    with bar:
        while True:
            with reading(store) as connection:
                rows = sorted(browse.newest(connection, "default", 20), key=lambda row: row.received_at)
                masks = {row.exchange_id: browse.masks_of(connection, "default", row.exchange_id) for row in rows}
            for row in rows:
                if row.exchange_id not in tasks:
                    tasks[row.exchange_id] = bar.add_task(row.exchange_id[:12], total=BUDGET)
                done = f"[green]{row.state}[/green]" if row.explanation_id else row.state
                bar.update(
                    tasks[row.exchange_id],
                    completed=masks[row.exchange_id],
                    description=f"{row.exchange_id[:13]}  {done}",
                )
            failed = [row for row in rows if row.state.startswith("failed")]
            if failed:
                sys.exit(f"the worker could not explain {failed[0].exchange_id}: {failed[0].state}")
            if len(rows) == expected and all(row.explanation_id for row in rows):
                return rows
            if time.monotonic() > deadline:
                sys.exit(f"no explanations after {EXPLAIN_S} s; see {HOME}/spex-proxy.log")
            time.sleep(0.3)


def show(store: Engine, question: Question, summary: Summary) -> bool:
    """Print one explanation and check it against its evidence; True if it follows."""
    assert summary.explanation_id is not None
    with reading(store) as connection:
        story = browse.story(connection, summary.explanation_id, "default")
        checks = verify(connection, summary.explanation_id, "default", Plugins())
    console.print()
    console.print(f"[bold]{question.title}[/bold]  [dim]look for: {question.look_for}[/dim]")
    console.print(explanation_panel(make_view(story.explanation, story.game, story.exchange), top=6))
    is_true = all(check.is_passed for check in checks)
    console.print("verify: " + ("[green]follows from its evidence[/green]" if is_true else "[red]FAILS[/red]"))
    return is_true


def balance(store: Engine, counted: int, relayed: int, done: list[Summary], checks: list[bool]) -> None:
    """Every token accounted for: what vLLM counted = what apps sent + what explaining cost."""
    with reading(store) as connection:
        ids = [str(row.explanation_id) for row in done]
        explained = sum(explanations.load_explanation(connection, one).cost.prompt_tokens for one in ids)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("prompt tokens that vLLM counted", f"{counted:,}")
    table.add_row("  of the apps' own requests", f"{relayed:,}")
    table.add_row("  of explaining, as the store says", f"{explained:,}")
    console.print(Panel(table, title="every token is accounted for", title_align="left", border_style="dim"))
    if counted != relayed + explained:
        sys.exit(f"vLLM counted {counted} prompt tokens, we account for {relayed + explained}")
    if not all(checks):
        sys.exit("an explanation does not follow from its stored evidence")


def prompt_tokens(server: str) -> int:
    """vLLM's own counter."""
    lines = httpx.get(f"{server}/metrics", trust_env=False).text.splitlines()
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:prompt_tokens_total")))


def send_to_review(store: Engine, done: list[Summary]) -> Case:
    """As an app, a rule or a person would: the answers that should be judged get into the queue."""
    opened = []
    with store.begin() as connection:
        for question, summary in zip(QUESTIONS, done, strict=True):
            if question.for_review:
                opened.append(
                    cases.open_case(
                        connection,
                        summary.exchange_id,
                        why="injected_instruction",
                        who="demo",
                        note=question.for_review,
                        priority=1,
                        explanation_id=summary.explanation_id,
                    )
                )
    return opened[0]


def where_next(first: Summary, case: Case, server: str, options: argparse.Namespace) -> None:
    pages = f"http://127.0.0.1:{options.admin_port}/spex/"
    console.print(
        f"\n[bold]Look further[/bold]  the audit pages: [bold]{pages}[/bold]"
        f"{' (gone when this ends: leave out --once)' if options.once else ''}\n"
        f"  export SPEX_STORE={STORE}\n"
        f"  .venv/bin/spex-proxy list\n"
        f"  .venv/bin/spex-proxy show {first.upstream_id}\n"
        f"  .venv/bin/spex-proxy verify {first.explanation_id}\n"
        f"  .venv/bin/spex-proxy show {first.upstream_id} --html why.html\n"
        f"\n[bold]Judge an answer[/bold]  the review queue: [bold]{pages}review[/bold]\n"
        f"  .venv/bin/spex-proxy audit claim {case.id[:12]}\n"
        f"  .venv/bin/spex-proxy retest {case.exchange_id} --top 1 --upstream {server}\n"
        f"  .venv/bin/spex-proxy report {case.id[:12]} --html report.html\n"
    )


if __name__ == "__main__":
    main()
