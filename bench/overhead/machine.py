"""What processes cost, read from Linux's /proc, and which cores they may use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for whoever is measured; the others for the upstream and the load."""

    target: frozenset[int]
    rest: frozenset[int]


def cores() -> Cores:
    """The last core that we may use is the target's; with a single one they share it."""
    *rest, last = sorted(os.sched_getaffinity(0))
    return Cores(frozenset((last,)), frozenset(rest or (last,)))


def family(pid: int) -> list[int]:
    """A process and all that it started, as far as they live."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (stat := _read(folder / "stat")):
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(folder.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Spent so far, to the nanosecond, by the threads that live."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            said = _read(thread).split()
            total += int(said[0]) if said else 0
    return total / 1e9


def memory_mb(pids: Iterable[int]) -> float:
    """Resident now."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(said.split()[1]) * page for pid in pids if (said := _read(Path(f"/proc/{pid}/statm")))) / 1e6


def busy_seconds() -> float:
    """Of all cores, by anybody, what a hypervisor took away included."""
    numbers = [int(x) for x in _read(Path("/proc/stat")).split("\n", 1)[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = numbers[:8]
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended meanwhile
        return ""
