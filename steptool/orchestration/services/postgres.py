"""A PostgreSQL cluster of our own: made when it is first needed, on the loopback, with one user and a password."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from steptool.core.errors import StepToolError
from steptool.orchestration.services.servers import HOST, USER, write_private

DATABASES = ("prefect", "mlflow", "mlflow_auth")


class Postgres:
    """A cluster of its own, with one user. PostgreSQL refuses to run as root; then it runs as nobody."""

    NOBODY = 65534

    def __init__(self, folder: Path, port: int, password: str, durable: bool) -> None:
        self._data, self._port, self._password, self._durable = folder / "data", port, password, durable

    def command(self) -> tuple[str, ...]:
        options = {"listen_addresses": HOST, "port": self._port, "unix_socket_directories": "", "max_connections": 200}
        options["fsync"] = "on" if self._durable else "off"
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return self._unprivileged(postgres_program("postgres"), "-D", str(self._data), *settings)

    def prepare(self) -> None:
        """Make the cluster, whole or not at all."""
        if (self._data / "PG_VERSION").exists():
            return
        staging = self._data.with_name("data.tmp")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True, mode=0o700)
        password = staging.with_name("password")
        write_private(password, self._password)
        if os.geteuid() == 0:
            os.chown(staging, self.NOBODY, self.NOBODY)
        options = ("-D", str(staging), "-U", USER, "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8")
        command = self._unprivileged(postgres_program("initdb"), *options, "--locale=C")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        password.unlink()
        if done.returncode != 0:
            raise StepToolError(done.stderr.strip(), where=str(staging), fix="see `initdb --help`")
        staging.rename(self._data)

    def answers(self) -> bool:
        import psycopg2

        try:
            self._connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def complete(self) -> None:
        """Make the databases that are missing."""
        with closing(self._connect("postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                there = {name for (name,) in cursor.fetchall()}
                for name in DATABASES:
                    if name not in there:
                        cursor.execute(f'CREATE DATABASE "{name}"')

    def _connect(self, database: str) -> Any:
        import psycopg2

        return psycopg2.connect(
            host=HOST, port=self._port, user=USER, password=self._password, dbname=database, connect_timeout=5
        )

    def _unprivileged(self, *command: str) -> tuple[str, ...]:
        if os.geteuid() != 0:
            return command
        # Its folder is in a checkout that may be closed to others: it may pass, and owns nothing but its data.
        may_pass = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
        return ("setpriv", f"--reuid={self.NOBODY}", f"--regid={self.NOBODY}", "--clear-groups", *may_pass, *command)


def postgres_program(name: str) -> str:
    """From the PATH, else the newest of Debian's, which are not on it."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        raise StepToolError(f"no {name} on this machine", fix="install PostgreSQL (Debian: apt install postgresql)")
    return found
