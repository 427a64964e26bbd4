"""The options of a stack, read from the environment (CONTRACT §1) and validated before anything starts."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from waybill_dev.errors import LocalError

BACKING = frozenset({"postgres", "rabbitmq"})
EVERYTHING = frozenset({*BACKING, "mail", "gateway", "services"})
STREAM_BYTES = 10_000_000_000
SEGMENT_BYTES = 20_000_000  # a stream drops whole segments, and never its last


@dataclass(frozen=True)
class Options:
    """`parts` lists what to boot. A URL names a server to use in place of a local one.

    `owner` is a process id: the stack stops when that process has ended, for whatever reason.
    """

    parts: frozenset[str] = EVERYTHING
    postgres_url: str | None = None
    amqp_url: str | None = None
    cors_origins: str = "[]"
    owner: int | None = None

    def has(self, part: str) -> bool:
        return part in self.parts

    def as_json(self) -> str:
        return json.dumps({**dataclasses.asdict(self), "parts": sorted(self.parts)})

    @classmethod
    def from_json(cls, text: str) -> "Options":
        fields = json.loads(text)
        return cls(**{**fields, "parts": frozenset(fields["parts"])})


def read_options(parts: frozenset[str] = EVERYTHING, environment: Mapping[str, str] = os.environ) -> Options:
    """Raises LocalError that names the variable and shows the expected form."""
    if unknown := parts - EVERYTHING:
        known = ", ".join(sorted(EVERYTHING))
        raise LocalError(f"--only: unknown part {', '.join(sorted(unknown))}. Known parts: {known}.")
    _check_webhook_allow(environment.get("WAYBILL_WEBHOOK_ALLOW", ""))
    _check_retry_delays(environment.get("WAYBILL_RETRY_DELAYS"))
    _check_redirect_uris(environment.get("WAYBILL_WEB_REDIRECT_URIS"))
    if environment.get("WAYBILL_PASSWORD_GRANT", "on") not in {"on", "off"}:
        raise LocalError("WAYBILL_PASSWORD_GRANT must be on or off")
    stream_bytes(environment)
    return Options(
        parts=parts,
        postgres_url=_url(environment, "WAYBILL_POSTGRES_URL", ("postgresql", "postgres")),
        amqp_url=_url(environment, "WAYBILL_AMQP_URL", ("amqp", "amqps")),
        cors_origins=_cors_origins(environment.get("WAYBILL_CORS_ORIGINS") or "[]"),
    )


def stream_bytes(environment: Mapping[str, str]) -> int:
    """The limit of the stream of history, from `WAYBILL_STREAM_BYTES`. Raises LocalError if it is not one."""
    value = environment.get("WAYBILL_STREAM_BYTES") or str(STREAM_BYTES)
    if not re.fullmatch(r"[0-9]{1,15}", value) or int(value) < SEGMENT_BYTES:
        raise LocalError(
            f"WAYBILL_STREAM_BYTES must be a number of bytes from {SEGMENT_BYTES} on, such as {STREAM_BYTES}"
        )
    return int(value)


def _url(environment: Mapping[str, str], name: str, schemes: tuple[str, ...]) -> str | None:
    value = environment.get(name)
    if not value:
        return None
    try:
        parts = urlsplit(value)
        complete = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise LocalError(f"{name} must look like {schemes[0]}://user:password@host:port/…")
    return value


def _cors_origins(value: str) -> str:
    try:
        origins = json.loads(value)
    except ValueError:
        origins = None
    if not isinstance(origins, list) or not all(
        isinstance(origin, str) and re.fullmatch(r"https?://[^/\s\"]+", origin) for origin in origins
    ):
        raise LocalError('WAYBILL_CORS_ORIGINS must be a JSON list of origins, such as ["https://shop.example"]')
    return json.dumps(origins)


def _check_webhook_allow(value: str) -> None:
    for entry in filter(None, (part.strip() for part in value.split(","))):
        if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):\d{1,5}", entry):
            raise LocalError(f"WAYBILL_WEBHOOK_ALLOW must be a comma list of host:port, and {entry!r} is not one")


def _check_redirect_uris(value: str | None) -> None:
    try:
        uris = json.loads(value) if value is not None else []
    except ValueError:
        uris = None
    if not isinstance(uris, list) or not all(
        isinstance(uri, str) and re.fullmatch(r"(https://|http://(127\.0\.0\.1|\[::1\])[:/])[^\s#]*", uri)
        for uri in uris
    ):
        example = '["https://shop.example/signed-in", "http://127.0.0.1:3000/signed-in"]'
        raise LocalError(
            f"WAYBILL_WEB_REDIRECT_URIS must be a JSON list of https:// or loopback URIs, such as {example}"
        )


def _check_retry_delays(value: str | None) -> None:
    if value is None:
        return
    delays = value.split(",")
    if len(delays) != 3 or not all(re.fullmatch(r"\s*\d+(\.\d+)?\s*", delay) for delay in delays):
        raise LocalError("WAYBILL_RETRY_DELAYS must be three numbers of seconds, such as 5,60,600")
