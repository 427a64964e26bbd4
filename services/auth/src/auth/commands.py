"""Operators' commands of auth, but for those on keys."""

from typing import Any

import click

from common.security.log_digests import LogDigests
from common.security.networks import UNKNOWN_NETWORK, network_of


@click.command("log-digest")
@click.argument("subject")
@click.pass_obj
def log_digest(load: Any, subject: str) -> None:
    """Prints the digest by which log lines of refused sign-ins name SUBJECT, an e-mail or network address."""
    network = network_of(subject)
    digests = LogDigests(load("ops").refresh_token_bytes)
    click.echo(digests.of(subject.lower() if network == UNKNOWN_NETWORK else network))
