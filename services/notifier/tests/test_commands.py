"""The operators' commands `deliveries` and `preview`."""

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.db.database import new_id
from common.testing.plugin import eventually
from notifier.__main__ import main
from notifier.models import TITLES
from notifier.settings import Settings

from .delivering import all_sent, customer, delivering
from .mailbox import Mailbox
from .world import World

NOBODY = "01a2054c-a789-745f-8420-744221d467b8"


@pytest.fixture
def run(settings: Settings) -> Any:
    async def run(*arguments: str) -> Result:
        def invoke() -> Result:
            return CliRunner().invoke(main, arguments, obj=lambda _role: settings)

        return await asyncio.to_thread(invoke)

    return run


async def rows(run: Any, *arguments: str) -> list[dict[str, Any]]:
    result = await run("deliveries", "list", *arguments, "--json")
    assert result.exit_code == 0, result.output
    listed: list[dict[str, Any]] = json.loads(result.output)
    return listed


@pytest.mark.parametrize("kind", TITLES)
def test_a_mail_of_each_kind_is_previewed_without_settings(kind: str) -> None:
    text, html = (CliRunner().invoke(main, ["preview", kind, *options]).output for options in ((), ("--html",)))
    assert text.startswith("Subject: ")
    assert "Waybill" in text
    assert html.startswith("<!doctype html>")


async def test_failed_deliveries_are_listed_with_their_cause_and_sent_again(
    run: Any, world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id = await customer(world)
    webhook_id, _ = await world.webhook(user_id)
    await world.execute("DELETE FROM notifications")  # of the new webhook
    mailbox.rcpt_answers = ["550 5.1.1 No such user"] * 2
    first, second = await world.order("placed", user_id), await world.order("placed", user_id)
    await world.execute(
        "UPDATE webhook_deliveries SET state = 'failed', cause = 'answered 500', settled_at = now(), attempts = 9"
    )
    async with delivering(settings):
        await eventually(lambda: _all_failed(world))
        listed = await rows(run, "--state", "failed", "--since", "1h")
        assert {(row["channel"], row["order_id"], row["user_id"]) for row in listed} == {
            (channel, str(order_id), str(user_id)) for channel in ("mail", "webhook") for order_id in (first, second)
        }
        mails = await rows(run, "--channel", "mail")
        assert [row["cause"] for row in mails] == ["550 5.1.1 No such user"] * 2
        assert [row["order_id"] for row in mails] == [str(second), str(first)]
        assert await rows(run, "--state", "sent") == await rows(run, "--since", "2100-01-01T00:00:00Z") == []
        shown = await run("deliveries", "show", mails[0]["id"], "--json")
        assert json.loads(shown.output)["cause"] == "550 5.1.1 No such user"
        again = await run("deliveries", "resend", mails[0]["id"], "--json")
        assert json.loads(again.output) == {"resent": [mails[0]["id"]], "not_settled": []}
        await eventually(lambda: _has_sent(world, 1))
        post = next(row["id"] for row in listed if row["channel"] == "webhook")
        assert post.startswith(str(webhook_id))
        assert (await run("deliveries", "resend", post)).exit_code == 0
        assert sorted(await world.post_states()) == ["failed", "pending"]
        everything = await run("deliveries", "resend", "--all", "--state", "failed", "--json")
        assert len(json.loads(everything.output)["resent"]) == 2
        await eventually(lambda: all_sent(world))
    assert len(mailbox.envelopes) == 2


async def _all_failed(world: World) -> bool:
    return set(await world.states()) == {"failed"}


async def _has_sent(world: World, count: int) -> bool:
    return (await world.states()).count("sent") == count


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["resend"], 2),
        (["resend", "--all"], 2),
        (["resend", NOBODY, "--all", "--state", "failed"], 2),
        (["resend", NOBODY, "--state", "failed"], 2),
        (["resend", "x"], 2),
        (["resend", NOBODY], 1),
        (["resend", f"{NOBODY}:{NOBODY}"], 1),
        (["show", NOBODY], 1),
        (["show", "x:y"], 2),
        (["list", "--state", "lost"], 2),
        (["list", "--since", "yesterday"], 2),
    ],
)
async def test_a_wrong_call_ends_with_a_sentence(run: Any, arguments: list[str], code: int) -> None:
    result = await run("deliveries", *arguments)
    assert result.exit_code == code
    assert "Error: " in result.output


async def test_what_waits_or_is_due_is_not_sent_again(run: Any, world: World) -> None:
    await world.order("placed", new_id())
    [row] = await rows(run, "--state", "waiting")
    result = await run("deliveries", "resend", row["id"])
    assert (result.exit_code, await world.states()) == (1, ["waiting"])


async def test_more_deliveries_are_sent_again_than_a_statement_has_parameters(run: Any, world: World) -> None:
    webhook_id, _ = await world.webhook("client-1")
    await world.execute(
        "INSERT INTO webhook_deliveries (webhook_id, event_id, type, host, order_id, order_version, state, cause,"
        " settled_at) SELECT :id, gen_random_uuid(), 'orders.order.placed.v1', 'x:1', gen_random_uuid(), 1, 'failed',"
        " 'answered 500', now() FROM generate_series(1, 17000)",
        id=webhook_id,
    )
    result = await run("deliveries", "resend", "--all", "--state", "failed", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.output)["resent"]) == 17_000
    assert await world.rows("SELECT DISTINCT state FROM webhook_deliveries") == [{"state": "pending"}]
