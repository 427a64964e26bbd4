"""Creates every password and key of the compose stack once, in a folder for each container that holds only its own.

Runs as the one-shot service `secrets`, on the standard library. Each folder that it fills is a volume, which one
service or server mounts read-only. Existing secrets are kept, so it is safe to run at every `up`; what is derived from
them (the broker's definitions, the databases' passwords and script, the list of clients) is written again.
"""

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from waybill_dev.base.declaration import SERVICES
from waybill_dev.base.options import stream_bytes
from waybill_dev.servers.rabbitmq_definitions import definitions

FOLDER = Path("/secrets")
# Numeric groups of the reading processes: that of our images, and that of both servers' images.
SERVICE_GROUP = 10001
SERVER_GROUP = 999


class Folder:
    """One container's secrets, readable only by its group."""

    def __init__(self, path: Path, group: int) -> None:
        self._path = path
        self._group = group
        os.chown(path, -1, group)
        path.chmod(0o750)

    def once(self, name: str, make: Callable[[], str]) -> str:
        """The secret `name`, created by the first call."""
        file = self._path / name
        if not file.exists():
            self.put(name, make())
        return file.read_text()

    def put(self, name: str, value: str) -> None:
        """Atomic: a concurrent reader sees the old value or the new one."""
        new = self._path / f".{name}"
        new.unlink(missing_ok=True)
        new.write_text(value)
        os.chown(new, -1, self._group)
        new.chmod(0o440)
        new.replace(self._path / name)


def password() -> str:
    """256 bit, safe in URLs and in quotes."""
    return secrets.token_urlsafe(32)


def key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def make_secrets(root: Path, *, service_group: int, server_group: int) -> None:
    """Fills one folder below `root`, which exists, for each service and server."""
    database_passwords, amqp_passwords, clients = {}, {}, []
    for service, declared in SERVICES.items():
        folder = Folder(root / service, service_group)
        database = folder.once("waybill_database_url", _url("postgresql", service, f"postgres:5432/{service}"))
        amqp = folder.once("waybill_amqp_url", _url("amqp", service, "rabbitmq:5672/"))
        client = folder.once("waybill_client_secret", password)
        for name in declared.keys:
            folder.once(name, key)
        database_passwords[service] = _password_in(database)
        amqp_passwords[service] = _password_in(amqp)
        digest = hashlib.sha256(client.encode()).hexdigest()
        clients.append({"client_id": service, "secret_sha256": digest, "scopes": list(declared.scopes)})

    Folder(root / "auth", service_group).put("waybill_service_clients", json.dumps(clients))

    postgres = Folder(root / "postgres", server_group)
    postgres.once("superuser_password", password)
    for service, value in database_passwords.items():
        postgres.put(service, value)
    postgres.put("databases.sql", databases_script(database_passwords))

    rabbitmq = Folder(root / "rabbitmq", server_group)
    administrator = rabbitmq.once("administrator_password", password)
    content = definitions(services=amqp_passwords, administrator=administrator, stream_bytes=stream_bytes(os.environ))
    rabbitmq.put("definitions.json", json.dumps(content))


def databases_script(services: Iterable[str]) -> str:
    """For psql: each service's role and database, by `deploy/compose/database.sql`. Safe to repeat."""
    steps = "".join(f"\\set service {service}\n\\i /databases/database.sql\n" for service in services)
    return f"\\set ON_ERROR_STOP on\n\\set QUIET on\n{steps}"


def _url(scheme: str, user: str, address: str) -> Callable[[], str]:
    return lambda: f"{scheme}://{user}:{password()}@{address}"


def _password_in(url: str) -> str:
    return urlsplit(url).password or ""


if __name__ == "__main__":
    make_secrets(FOLDER, service_group=SERVICE_GROUP, server_group=SERVER_GROUP)
