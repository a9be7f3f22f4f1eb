"""Workers that die, freeze, stop and come back: every job ends once, nothing that is stored is asked again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

import httpx
import pytest

from spex_proxy.flows.jobs import Options
from tests.story.explaining import question
from tests.story.jobs.factory import MASKS, Factory, text
from tests.story.processes import Running, running, wait_until
from tests.story.scripted_model import waiting

pytestmark = pytest.mark.timeout(240)

KILLS = 20
PROXY_KILLS = 4

on_postgres = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)
on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@on_sqlite
def test_a_batch_of_jobs(factory: Factory) -> None:
    factory.ask(4)
    with factory.worker() as worker:
        factory.wait_done(4)
        assert worker.stop() == 0
    factory.assert_adds_up()
    assert len(factory.model.asked) == 4 * MASKS
    assert "Traceback" not in worker.log
    assert "WARNING" not in worker.log


# ---- kill -9 ----


class _App:
    """Asks through the proxy, again and again, until told to stop; a proxy that is away is asked again."""

    def __init__(self, url: str, most: int) -> None:
        self._url, self._most = url, most
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="app")
        self.served = 0

    def __enter__(self) -> _App:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not self._stop.wait(0.2) and self.served < self._most:
                try:
                    body = question(text(f"p{self.served}"))
                    answer = client.post(f"{self._url}/v1/chat/completions", json=body)
                except httpx.HTTPError:
                    continue
                assert answer.status_code == 200
                self.served += 1


def test_workers_and_proxy_are_killed_at_random_points(factory: Factory) -> None:
    """On SQLite the one worker; on PostgreSQL two of three at a time. The proxy dies between them."""
    random = Random(20261122)
    factory.model.delay_s = 0.03
    settings = factory.settings
    with ExitStack() as alive:
        proxies = [alive.enter_context(running("serve", settings, factory.folder))]
        app = alive.enter_context(_App(settings.relay_url, most=40))
        wait_until(lambda: app.served >= 3, 30)

        def start_worker() -> Running:
            return alive.enter_context(factory.worker())

        at_once = 1 if factory.is_sqlite else 2
        crew = [start_worker() for _ in range(1 if factory.is_sqlite else 3)]
        for blow in range(KILLS // at_once):
            asked = len(factory.model.asked)
            deadline = time.monotonic() + 8
            while len(factory.model.asked) == asked and time.monotonic() < deadline and random.random() > 0.005:
                time.sleep(0.01)  # most often in the middle of work, sometimes anywhere
            time.sleep(random.uniform(0, 0.5))
            for victim in crew[:at_once]:
                victim.kill()
            crew = crew[at_once:] + [start_worker() for _ in range(at_once)]
            if blow % (KILLS // at_once // PROXY_KILLS) == 1:
                proxies[-1].kill()
                proxies.append(alive.enter_context(running("serve", settings, factory.folder)))
        wait_until(lambda: app.served == 40, 60)
        wait_until(lambda: not set(factory.states()) - {"done", "failed"}, 90)
        assert proxies[-1].stop() == 0
        wait_until(lambda: not set(factory.states()) - {"done", "failed"}, 60)
        assert all(worker.stop() in (0, -signal.SIGTERM) for worker in crew), "the last may not be awake yet"
    states = factory.states()
    assert states["done"] == sum(states.values()), f"nobody was killed so often with one job: {states}"
    assert states["done"] > 25
    factory.assert_adds_up(most_lost_batches=KILLS * (1 if factory.is_sqlite else 2))


def test_a_job_that_kills_its_workers_ends_with_its_reason(factory: Factory, tmp_path: Path) -> None:
    """A plugin that takes the whole process with it, as a bug in native code does. The other jobs get on."""
    plugin = tmp_path / "poison"
    plugin.mkdir()
    (plugin / "poison.py").write_text(
        "import os\n"
        "from spex_proxy_standard.segmenters import SentenceSegmenter\n"
        "class Poisonous(SentenceSegmenter):\n"
        "    name = 'poisonous'\n"
        "    def split(self, exchange):\n"
        "        if 'Poison' in exchange.messages[0].text:\n"
        "            os._exit(9)\n"
        "        return super().split(exchange)\n"
    )
    info = plugin / "poison-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: poison\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[spex_proxy.segmenters]\npoisonous = poison:Poisonous\n")
    factory.recipe_changes(segmenter="poisonous")
    (poison,) = factory.ask(1, words="Poison is in here. ")
    factory.ask(2)
    deaths = 0
    while set(factory.states()) - {"done", "failed"}:
        with factory.worker({"PYTHONPATH": str(plugin)}) as worker:
            died: Callable[[], bool] = lambda: worker.process.poll() is not None  # noqa: E731 - used at once
            wait_until(lambda: died() or not set(factory.states()) - {"done", "failed"}, 60)  # noqa: B023
            deaths += died()
        assert deaths <= 6, "it goes on for ever"
    job = factory.job(poison)
    assert job.state == "failed"
    assert str(job.reason).startswith("the worker died with this job 4 times in a row")
    assert factory.states() == {"done": 2, "failed": 1}
    factory.assert_adds_up(most_lost_batches=2 * deaths)


# ---- two workers ----


@on_postgres
def test_two_workers_on_one_job(factory: Factory) -> None:
    factory.model.delay_s = 0.05
    with factory.worker() as one, factory.worker() as other:
        wait_until(lambda: len(factory.alive()) == 2, 30)
        factory.ask(1)
        factory.wait_done(1)
        assert (one.stop(), other.stop()) == (0, 0)
    factory.assert_adds_up()
    assert len(factory.model.asked) == MASKS
    assert factory.alive() == set(), "who leaves says so"


@on_sqlite
def test_a_second_worker_on_sqlite_is_told_what_to_do(factory: Factory) -> None:
    with factory.worker() as one:
        wait_until(lambda: len(factory.alive()) == 1, 30)
        with factory.worker() as other:
            assert other.process.wait(30) == 1
            said = " ".join(other.log.split())
        assert f"process {one.process.pid} holds" in said
        assert "keep the store in PostgreSQL to have many" in said
        factory.ask(1)
        factory.wait_done(1)


# ---- frozen ----


@on_postgres
def test_a_frozen_worker_that_wakes_up_after_the_takeover_harms_nothing(factory: Factory) -> None:
    (exchange,) = factory.ask(1)
    gate = factory.model.gate()
    factory.model.faults.extend([lambda reply: [reply]] * 2)
    factory.model.faults.append(waiting(gate))  # the third batch is answered when its worker is long frozen
    with factory.worker() as frozen:
        factory.wait_asked(24)
        frozen.process.send_signal(signal.SIGSTOP)
        with factory.worker() as successor:
            factory.wait_done(1)
            made = factory.job(exchange).explanation_id
            gate.open()
            frozen.process.send_signal(signal.SIGCONT)
            wait_until(lambda: "no longer belongs to" in frozen.log, 30)
            assert successor.stop() == 0
        factory.ask(1)  # and it works on, for others
        factory.wait_done(2)
        assert frozen.stop() == 0
    assert factory.job(exchange).explanation_id == made
    assert factory.job(exchange).attempts == 2
    factory.assert_adds_up(most_lost_batches=1)
    assert len(factory.model.asked) == 2 * MASKS + 8


@on_postgres
def test_a_worker_that_is_frozen_again_and_again(factory: Factory) -> None:
    """At random points, some of them in the middle of a transaction: its locks must not outlive the patience
    of the database by long, and whatever it does when it wakes up is too late or right."""
    random = Random(7)
    factory.model.delay_s = 0.02
    factory.ask(12)
    with factory.worker() as one, factory.worker() as other:
        for worker in (one, other):
            factory.wait_asked(len(factory.model.asked) + 8 if "queued" in factory.states() else 0)
            time.sleep(random.uniform(0, 0.3))
            worker.process.send_signal(signal.SIGSTOP)
            time.sleep(4.5)  # longer than it takes to be held for dead
            worker.process.send_signal(signal.SIGCONT)
        factory.wait_done(12, within_s=90)
        assert (one.stop(), other.stop()) == (0, 0)
    factory.assert_adds_up(most_lost_batches=8, frozen=4)  # twice, with two jobs under way each time


# ---- stopped ----


@on_postgres
def test_sigterm_in_mid_explanation_hands_it_back(factory: Factory) -> None:
    (exchange,) = factory.ask(1)
    factory.model.faults.extend([lambda reply: [reply]] * 2)
    factory.model.faults.append(waiting(factory.model.gate()))
    with factory.worker() as worker:
        factory.wait_asked(24)
        started = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - started < 15
    job = factory.job(exchange)
    assert (job.state, job.worker, job.takeovers, job.failures) == ("queued", None, 0, 0)
    assert factory.alive() == set()
    assert "Traceback" not in worker.log
    with factory.worker():
        factory.wait_done(1)
    factory.assert_adds_up(most_lost_batches=1)
    assert len(factory.model.asked) == MASKS + 8


@on_postgres
def test_the_jobs_of_a_killed_worker_are_taken_over_within_a_minute(factory: Factory) -> None:
    """Measured with a patience of 3 s, and a bound that holds for the default as well."""
    patience, allowed = 3.0, 1.5
    assert Options(concurrency=1).ttl_s * allowed < 60 / 1.5
    (exchange,) = factory.ask(1)
    factory.model.faults.extend([lambda reply: [reply]] * 2)
    factory.model.faults.append(waiting(factory.model.gate()))
    with factory.worker(worker_ttl_s=patience) as victim:
        factory.wait_asked(24)
        with factory.worker(worker_ttl_s=patience):
            wait_until(lambda: len(factory.alive()) == 2, 60)
            time.sleep(patience)  # by now it may judge
            victim.kill()
            died = time.monotonic()
            wait_until(lambda: factory.job(exchange).attempts == 2, 60, every_s=0.02)
            took = time.monotonic() - died
            factory.wait_done(1)
    print(f"claimed {took:.1f} s after the kill, with a patience of {patience:g} s")  # noqa: T201
    assert took < patience * allowed + 1
    factory.assert_adds_up(most_lost_batches=1)
