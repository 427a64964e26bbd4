import asyncio
import getpass
import os
import sys

import click
import httpx

from waybill_dev.base.state import find_state
from waybill_dev.errors import LocalError
from waybill_dev.journeys.sign_in import access_token
from waybill_dev.supervision import control


@click.command()
@click.argument("email")
def token(email: str) -> None:
    """Prints an access token for EMAIL.

    Prompts for the password, unless WAYBILL_PASSWORD is set or EMAIL is the local administrator's.
    """
    status = control.call(find_state(), "status")
    if status["gateway"] is None:
        raise LocalError("the stack was booted without the gateway and the services")
    print(asyncio.run(_sign_in(status["gateway"], email, password_of(email, status["admin"]))))


def password_of(email: str, admin: dict[str, str] | None) -> str:
    if given := os.environ.get("WAYBILL_PASSWORD"):
        return given
    if admin is not None and admin["email"] == email:
        return admin["password"]
    if not sys.stdin.isatty():
        raise LocalError("there is no terminal for the password prompt: set WAYBILL_PASSWORD")
    return getpass.getpass(f"Password of {email}: ")


async def _sign_in(gateway: str, email: str, password: str) -> str:
    async with httpx.AsyncClient(base_url=gateway, timeout=20) as client:
        return await access_token(client, email, password)
