"""The commands that ask the model server: explain, doctor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from spex_proxy import __version__
from spex_proxy.cli.results import show as show_result
from spex_proxy.cli.shell import AnyId, Store, Upstream, console, progress_bar, run_until_stopped, settings_from
from spex_proxy.cli.shown import without_password
from spex_proxy.facts.errors import SettingsError
from spex_proxy.store.connect import reading

if TYPE_CHECKING:
    from spex_proxy.facts.exchange import Exchange
    from spex_proxy.facts.explanation import Explanation
    from spex_proxy.facts.finding import Finding
    from spex_proxy.facts.recipe import Recipe
    from spex_proxy.flows.explain import Parts, Progress


def explain(
    any_id: AnyId,
    upstream: Upstream = None,
    store: Store = None,
    segmenter: Annotated[
        str | None, typer.Option(help="auto, message, document, sentence, word or a plugin's.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Most masks to ask.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed asks other masks.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="A part of the answer: first_token, chars:10-24, quote:TEXT, tool_call:1, tool_call:1:name or "
            "tool_call:1:arguments."
        ),
    ] = None,
) -> None:
    """Explain one stored exchange now, and show the result."""
    from spex_proxy.store.exchanges import load_exchange
    from spex_proxy.store.lookup import find
    from spex_proxy.wiring.shared import make_recipe
    from spex_proxy.wiring.worker import worker_parts

    settings = settings_from(upstream=upstream, store=store, segmenter=segmenter, budget=budget, seed=seed)

    async def run(stop: asyncio.Event) -> Explanation:
        async with worker_parts(settings, in_foreground=True) as parts:
            with reading(parts.store) as connection:
                found = find(connection, any_id, settings.project)
                recipe = make_recipe(settings)
                if target is not None:
                    exchange = load_exchange(connection, str(found.exchange_id), project=settings.project)
                    recipe = replace(recipe, target=_spelled(target, exchange))
            return await explain_here(str(found.exchange_id), recipe, parts, settings.project, stop)

    explanation = run_until_stopped(run)
    show_result(explanation.id, store=store)


async def explain_here(
    exchange_id: str, recipe: Recipe, parts: Parts, project: str, stop: asyncio.Event
) -> Explanation:
    """Explain in the foreground, under a progress bar, until done or stopped."""
    from spex_proxy.flows.explain import explain as explain_flow

    with progress_bar() as bar:
        task = bar.add_task("preparing", total=recipe.budget)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.masks, description=progress.note)

        explaining = asyncio.create_task(explain_flow(exchange_id, recipe, parts, project=project, on_progress=show))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({explaining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not explaining.done():
            explaining.cancel()
        return await explaining


def why(any_id: AnyId, upstream: Upstream = None, store: Store = None) -> None:
    """Why this answer? Shows its explanation, and makes one first if there is none. `chatcmpl-...` will do."""
    from spex_proxy.store.lookup import find
    from spex_proxy.wiring.store import ready_store

    settings = settings_from(upstream=upstream, store=store)
    engine = ready_store(settings)
    with reading(engine) as connection:
        found = find(connection, any_id, settings.project)
    engine.dispose()
    if found.explanation_ids:
        show_result(found.explanation_ids[0], store=store)
    else:
        explain(str(found.exchange_id), upstream=upstream, store=store)


def _masked(finding: Finding) -> Finding:
    """A report is pasted into tickets: addresses of replicas stand in it without their passwords."""
    name, found, advice = map(without_password, (finding.name, finding.found, finding.advice))
    return replace(finding, name=name, found=found, advice=advice)


def _spelled(target: str, exchange: Exchange) -> str:
    from spex_proxy.wire.aiming import spelled_for

    try:
        return spelled_for(target, exchange)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def doctor(
    upstream: Upstream = None,
    store: Store = None,
    model: Annotated[str | None, typer.Option(help="The model to try; without it, the first that is served.")] = None,
    relay: Annotated[
        bool, typer.Option("--relay", help="Test the relay on this server too: some 200 short requests.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Is everything there, and if not, what to do? Changes nothing. Exit code 1 if something is broken."""
    from spex_proxy.study import findings as report
    from spex_proxy.wiring.doctor import doctor_parts
    from spex_proxy.wiring.self_test import self_test

    settings = settings_from(upstream=upstream, store=store)

    async def examine(_: asyncio.Event) -> list[Finding]:
        found: list[Finding] = []

        async def tell(findings: AsyncIterator[Finding]) -> None:
            async for told in findings:
                finding = _masked(told)
                found.append(finding)
                if not is_json:
                    console.print(report.finding_line(finding))

        async def named(findings: AsyncIterator[Finding], url: str) -> AsyncIterator[Finding]:
            """Of several replicas, which one is meant."""
            async for finding in findings:
                yield replace(finding, name=f"{finding.name} ({url})") if len(settings.upstreams) > 1 else finding

        async with doctor_parts(settings, model) as parts:
            await tell(parts.examine())
        for url in settings.upstreams if relay else ():
            async with self_test(settings, url, model) as test:
                await tell(named(test.examine(), url))
        return found

    found = run_until_stopped(examine)
    if is_json:
        typer.echo(json.dumps(report.as_json(found, __version__), indent=2, ensure_ascii=False))
    else:
        console.print(report.summary(found))
    raise typer.Exit(int(report.is_broken(found)))
