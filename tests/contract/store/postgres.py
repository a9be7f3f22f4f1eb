"""A private PostgreSQL server: a folder of its own, a unix socket, no network; stopped by its pid.

It answers fast and forgets at a power cut: for tests. A bench that measures writing says `is_durable`.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

START_SECONDS = 30.0


class Unavailable(Exception):
    """There is no PostgreSQL here; the message says why."""


class Server:
    """A running server. `folder` holds its files and its socket."""

    def __init__(self, folder: Path, command: list[str], user: dict[str, Any]) -> None:
        self._folder = folder
        self._command = command
        self._user = user
        self._numbers = itertools.count()

    def start(self) -> None:
        """Until it answers. Raises Unavailable."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._folder, **self._user)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    reason = (self._folder / "log").read_text()[-500:]
                    raise Unavailable(f"it did not start: {reason}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Fast shutdown: sessions are cut, files are closed."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=30)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(f"host={self._folder} user=spex dbname=postgres", autocommit=True)

    def make_database(self, template: str = "template0", name: str | None = None) -> str:
        """The name of a new database, a copy of `template`."""
        name = name or f"store_{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def url(self, name: str) -> str:
        return f"postgresql://spex@/{name}?host={self._folder}"


@contextmanager
def running(kept: Path | None = None, *, is_durable: bool = False) -> Iterator[Server]:
    """A server for as long as the block lasts. With `kept`, a folder that another user may enter, its databases stay
    there. Raises Unavailable."""
    initdb, binary, user = _binary("initdb"), _binary("postgres"), _unprivileged()
    folder = kept or Path(tempfile.mkdtemp(prefix="spex-pg-"))  # not pytest's: another user must get in
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if user:
            os.chown(folder, user["user"], user["group"])
        if not (folder / "data" / "PG_VERSION").exists():
            command = [initdb, "-D", "data", "-A", "trust", "-U", "spex", "-E", "UTF8", "--no-sync"]
            made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=folder, **user)
            if made.returncode:
                raise Unavailable(f"initdb failed: {made.stderr[-500:]}")
        settings = ["listen_addresses=", f"unix_socket_directories={folder}", "max_connections=50"]
        settings += [] if is_durable else ["fsync=off"]
        command = [binary, "-D", "data", *(part for setting in settings for part in ("-c", setting))]
        server = Server(folder, command, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        if kept is None:
            shutil.rmtree(folder)


def _binary(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    if found is None:
        raise Unavailable(f"`{name}` is neither on PATH nor in /usr/lib/postgresql: install PostgreSQL")
    return found


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: whom to run it as, as arguments of subprocess."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise Unavailable("it does not run as root, and there is no user `postgres` or `nobody`")
