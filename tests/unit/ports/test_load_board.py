"""The board between relays and workers: real files, real processes, a clock that the test moves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.load import Production, Unseen
from spex_proxy.ports.load_board import GONE_S, SLOTS, STALE_S, Board, Pulse

BILLION = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> int:
        return int(self.now_s * BILLION)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(tmp_path: Path, clock: Clock) -> Iterator[Board]:
    made = Board(tmp_path / "var" / "load-board", clock)
    yield made
    made.close()


def counts(board: Board) -> tuple[int, int, int, int]:
    seen = board.read()
    assert isinstance(seen, Production), seen
    return seen.in_flight, seen.awaiting_first, seen.arrivals, seen.gaps.total


def test_a_request_from_its_arrival_to_its_end(board: Board, clock: Clock) -> None:
    slot = board.slot()
    assert counts(board) == (0, 0, 0, 0)
    pulse = slot.arrived()
    assert counts(board) == (1, 1, 1, 0)
    pulse.beat()
    assert counts(board) == (1, 0, 1, 0)
    clock.now_s += 0.02
    pulse.beat()
    assert counts(board) == (1, 0, 1, 1)
    pulse.end()
    pulse.end()
    assert counts(board) == (0, 0, 1, 1)
    seen = board.read()
    assert isinstance(seen, Production)
    assert seen.gaps.quantile(0.5) == pytest.approx(0.02, rel=0.13)


def test_a_request_that_gets_no_answer(board: Board) -> None:
    pulse = board.slot().arrived()
    pulse.end()
    assert counts(board) == (0, 0, 1, 0)


@given(acts=st.lists(st.tuples(st.sampled_from(["arrive", "beat", "end"]), st.integers(0, 9)), max_size=60))
def test_counts_never_drift(tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int]]) -> None:
    """In whatever order requests arrive, are answered and end: what is counted is what is open."""
    board = Board(tmp_path_factory.mktemp("board") / "board")
    slot, arrivals = board.slot(), 0
    silent: list[Pulse] = []
    answered: list[Pulse] = []
    for act, number in acts:
        open_ones = silent + answered
        if act == "arrive":
            silent.append(slot.arrived())
            arrivals += 1
        elif open_ones:
            pulse = open_ones[number % len(open_ones)]
            pulse.beat() if act == "beat" else pulse.end()
            if pulse in silent:
                silent.remove(pulse)
                answered.extend([pulse] if act == "beat" else [])
            elif act == "end":
                answered.remove(pulse)
    in_flight, awaiting, ever, _ = counts(board)
    board.close()
    assert (in_flight, awaiting, ever) == (len(silent) + len(answered), len(silent), arrivals)


def test_nobody_writes(board: Board) -> None:
    seen = board.read()
    assert isinstance(seen, Unseen)
    assert "no relay writes to the load board" in seen.why


def test_a_relay_that_stands_still_is_unknown_and_then_gone(board: Board, clock: Clock) -> None:
    slow, lively = board.slot(), board.slot()
    slow.arrived()
    clock.now_s += STALE_S + 0.1
    lively.tick()
    assert isinstance(board.read(), Unseen)
    slow.tick()
    assert counts(board) == (1, 1, 1, 0)
    clock.now_s += GONE_S + 0.1
    lively.tick()
    assert counts(board) == (0, 0, 0, 0)


def test_a_relay_that_has_ended_is_not_waited_for(board: Board) -> None:
    one, two = board.slot(), board.slot()
    late = one.arrived()
    one.close()
    late.beat()  # its last bytes, after the end: they say nothing and hurt nobody
    late.end()
    two.arrived()
    assert counts(board) == (1, 1, 1, 0)


def test_slots_run_out_and_come_back(board: Board, clock: Clock) -> None:
    taken = [board.slot() for _ in range(SLOTS)]
    with pytest.raises(SettingsError, match=f"{SLOTS} relay processes"):
        board.slot()
    taken[7].close()
    board.slot()
    clock.now_s += GONE_S + 0.1
    board.slot()


def test_a_time_of_an_earlier_boot_is_long_ago(board: Board, clock: Clock) -> None:
    board.slot()
    clock.now_s = 5.0
    assert isinstance(board.read(), Unseen)
    board.slot()
    assert counts(board) == (0, 0, 0, 0)


def test_another_files_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "board"
    path.write_bytes(b"something else" * 10_000)
    with pytest.raises(SettingsError, match="no load board of this version"):
        Board(path)


def test_a_folder_that_can_t_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="can't be used"):
        Board(tmp_path / "file" / "board")


_RELAY = """
import sys
from pathlib import Path
from spex_proxy.ports.load_board import Board
slot = Board(Path(sys.argv[1])).slot()
slot.arrived().beat()
slot.arrived()
print("there", flush=True)
for line in sys.stdin:
    slot.tick()
"""


def test_two_processes_and_a_kill(tmp_path: Path) -> None:
    """Times are the host's: what another process wrote is understood, and what it can't write any more too."""
    path = tmp_path / "board"
    board = Board(path)
    with subprocess.Popen(
        [sys.executable, "-c", _RELAY, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        assert counts(board) == (2, 1, 2, 0)
        board.slot().arrived()
        assert counts(board) == (3, 2, 3, 0)
        os.kill(other.pid, signal.SIGKILL)
        other.wait(10)
    later = Board(path, lambda: board._clock() + int((GONE_S + 1) * BILLION))
    assert isinstance(later.read(), Unseen)
    later.close()
    board.close()
