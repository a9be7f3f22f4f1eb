"""Workers as processes, a model that remembers when it was asked what, and the sums that must be right in the end."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import Engine

from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.probes import make_probes
from spex_proxy.plug.load import Plugins
from spex_proxy.store import exchanges, games, outbox
from spex_proxy.store.connect import open_store, reading
from spex_proxy.store.tables import evidence_blocks, explanations, workers
from spex_proxy.store.tables import games as games_table
from spex_proxy.store.tables import outbox as jobs
from tests.story.explaining import Desk, question
from tests.story.processes import Running, Settings, running, wait_until
from tests.story.scripted_model import ScriptedModel, planted
from tests.story.upstream import Gate, Seen, Step

WORDS = ("Alpha", "Bravo", "Charlie", "Delta", "Echo")
MASKS = 34
"""What a job with these five sentences asks: all 32 masks, and the full prompt twice more."""
RECIPE = Recipe(segmenter="sentence", budget=80, target_r2=1.0)
QUICK = {"worker_ttl_s": 2, "job_pause_s": 0.3, "log_level": "INFO", "gate": "off"}
"""Settings under which what takes half a minute in production takes a few seconds. No relay, hence no gate."""


class _Pause(Gate):
    """A step of a script that takes time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds)


class PacedModel(ScriptedModel):
    """A scripted model that takes `delay_s` for a batch, and remembers when it was asked what."""

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__(planted(-12, {("Bravo",): 1.5, ("Alpha", "Delta"): 4}))
        self.delay_s = delay_s
        self.times: dict[tuple[int, ...], list[float]] = defaultdict(list)
        """Probe -> when it was asked, each time."""

    def _score_one(self, index: int, ids: list[int]) -> dict[str, Any]:
        self.times[tuple(ids)].append(time.time())
        return super()._score_one(index, ids)

    async def _respond(self, seen: Seen) -> Sequence[Step]:
        script = await super()._respond(seen)
        is_scoring = b'"prompt_logprobs"' in seen.body
        return [_Pause(self.delay_s), *script] if is_scoring and self.delay_s else script


def text(name: str) -> str:
    """Five sentences, no word of which stands in another exchange: so are its probes."""
    return " ".join(f"{word}{name} is{name} here{name}." for word in WORDS)


@dataclass
class _Settings(Settings):
    """With more in the environment than settings."""

    added: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return super().environment() | self.added


@dataclass
class Factory:
    """A store, a model, and any number of workers."""

    url: str
    model: PacedModel
    folder: Path
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.store: Engine = open_store(self.url)
        self.desk = Desk(self.model.url, self.store, RECIPE)
        self.settings = Settings(self.model.url, self.url, more=QUICK | self.more)
        self._open.callback(self.store.dispose)
        self._open.callback(self.desk.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def ask(self, count: int = 1, words: str = "") -> list[str]:
        """Exchanges, each with a job; their ids."""
        return [self.desk.ask(question(f"{words}{text(f'x{next(self._numbers)}')}")) for _ in range(count)]

    def recipe_changes(self, **changes: Any) -> None:
        self.desk.recipe = replace(RECIPE, **changes)

    @contextmanager
    def worker(
        self, environment: Mapping[str, str] | None = None, *, limit: Callable[[], object] | None = None, **more: Any
    ) -> Iterator[Running]:
        """`spex-proxy work`. `more` are settings of this one."""
        settings = _Settings(self.model.url, self.url, more=self.settings.more | more)
        settings.added = dict(environment or {})
        with running("work", settings, self.folder, before_start=limit) as process:
            yield process

    def alive(self) -> set[str]:
        """Names of the workers that have a heartbeat, fresh or not."""
        with reading(self.store) as connection:
            return set(connection.scalars(sa.select(workers.c.id)))

    def states(self) -> dict[str, int]:
        with reading(self.store) as connection:
            return {state: n for state, n in outbox.counts(connection).items() if n}

    def wait_done(self, count: int, within_s: float = 60) -> None:
        wait_until(lambda: self.states() == {"done": count}, within_s)

    def wait_asked(self, count: int, within_s: float = 60) -> None:
        wait_until(lambda: len(self.model.asked) >= count, within_s, every_s=0.01)

    def job(self, exchange: str) -> outbox.Job:
        (job,) = self.desk.jobs(exchange)
        return job

    def job_ids(self) -> list[str]:
        with reading(self.store) as connection:
            return list(connection.scalars(sa.select(jobs.c.id)))

    # ---- the sums ----

    def assert_adds_up(self, most_lost_batches: int = 0, frozen: int = 0, *, clocks_agree: bool = True) -> None:
        """Exchanges, jobs and explanations fit together, and no committed reading was asked again.

        Unless `clocks_agree` the latter is left to the caller: it needs the times of workers and of the model.
        """
        with reading(self.store) as connection:
            for job in connection.execute(sa.select(jobs)):
                made = connection.execute(
                    sa.select(explanations.c.id).where(explanations.c.exchange_id == job.exchange_id)
                ).all()
                if job.state == "done":
                    assert [row.id for row in made] == [job.explanation_id], "explained exactly once"
                    assert job.finished_at is not None
                else:
                    assert job.state in ("failed", "cancelled"), f"job {job.id} is {job.state}"
                    assert job.reason
                    assert made == []
        if clocks_agree:
            self.assert_nothing_asked_again(most_lost_batches, frozen)

    def assert_nothing_asked_again(self, most_lost_batches: int, frozen: int) -> None:
        """From the model's own notes: nothing was asked after its reading was committed; what was asked more often
        than it was committed was under way when somebody died. A worker that was frozen on its way to ask a batch
        asks it when it wakes up, and then learns that it is too late."""
        committed = self._committed()
        asked = {probe: list(times) for probe, times in self.model.times.items()}
        # the full prompt is measured three times, and the empty one is the same in all exchanges: hence the last
        again = sum(max(asked[probe]) > max(moments) for probe, moments in committed.items())
        assert again <= 8 * frozen, f"{again} committed readings were asked again"
        lost = sum(map(len, asked.values())) - sum(map(len, committed.values()))
        assert 0 <= lost <= 8 * most_lost_batches, f"{lost} answers were lost"

    def _committed(self) -> dict[tuple[int, ...], list[float]]:
        """Probe -> when its readings were stored."""
        found: dict[tuple[int, ...], list[float]] = defaultdict(list)
        plugins = Plugins()
        with reading(self.store) as connection:
            for game_id, exchange_id in connection.execute(sa.select(games_table.c.id, games_table.c.exchange_id)):
                game = games.load_game(connection, game_id)
                tokens = exchanges.load_tokens(connection, exchange_id)
                salt = exchanges.load_salt(connection, exchange_id)
                assert tokens is not None
                times = sa.select(evidence_blocks.c.asked_at).where(evidence_blocks.c.game_id == game_id)
                stored = connection.scalars(times.order_by(evidence_blocks.c.number)).all()
                for block, at in zip(games.load_blocks(connection, game_id), stored, strict=True):
                    for probe in make_probes(game, tokens, salt, plugins, block.masks):
                        found[probe.prompt_ids + probe.output_ids].append(at.timestamp())
        return found
