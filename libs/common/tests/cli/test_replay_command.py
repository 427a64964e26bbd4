"""`events replay` as an operator uses it: stopped, killed, refused, continued."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import pytest

from common.cli import event_commands
from common.messaging.topology import declare_producer

from .shop import Shop

HISTORY = """
    INSERT INTO event_log (event_id, type, subject, version, occurred_at, data)
    SELECT gen_random_uuid(), 'shop.item.sold.v1', 'item-' || n % 7, n / 7 + 1, now(), json_build_object('number', n)
    FROM generate_series(0, $1 - 1) AS n"""


@asynccontextmanager
async def history(shop: Shop, events: int, **arguments: Any) -> AsyncIterator[Any]:
    """A log of that many events of seven aggregates, and the queue `late`, bound for replays."""
    database = await asyncpg.connect(shop.database.dsn)
    await database.execute(HISTORY, events)
    await database.close()
    async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
        channel = await connection.channel()
        await declare_producer(channel, "shop")
        late = await channel.declare_queue("late", arguments=arguments)
        await late.bind("shop.replay", "late")
        yield late
        await late.delete(if_empty=False)


async def numbers(queue: Any) -> list[int]:
    received = []
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        received.append(json.loads(message.body)["number"])
    return received


def assert_complete_and_in_order(received: Sequence[int], events: int) -> None:
    first_copies = list(dict.fromkeys(received))
    assert set(first_copies) == set(range(events))
    for aggregate in range(7):
        assert [n for n in first_copies if n % 7 == aggregate] == list(range(aggregate, events, 7))


async def replaying_process(shop: Shop, *words: str) -> asyncio.subprocess.Process:
    environment = {
        "PATH": os.environ["PATH"],
        "WAYBILL_DATABASE_URL": shop.settings.database_url.get_secret_value(),
        "WAYBILL_AMQP_URL": shop.settings.amqp_url.get_secret_value(),
        "WAYBILL_PUBLIC_URL": shop.settings.public_url,
        "WAYBILL_AUTH_URL": shop.settings.auth_url,
        "WAYBILL_SECRETS_DIR": "/nonexistent",
    }
    program = (sys.executable, str(Path(__file__).parent / "shop_process.py"), "events", "replay")
    return await asyncio.create_subprocess_exec(
        *program, *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def position_of(process: asyncio.subprocess.Process) -> int:
    """The position in the first line of progress."""
    assert process.stderr is not None
    async with asyncio.timeout(30):
        async for line in process.stderr:
            if match := re.search(rb"position (\d+) reached", line):
                return int(match[1])
    raise AssertionError("the process ended without a line of progress")


def continuing(output: str) -> list[str]:
    """The words after `python -m shop events` of the command that an ended replay prints."""
    command = shlex.split(output.partition("To send the rest: ")[2])
    assert command[:4] == ["python", "-m", "shop", "events"]
    return command[4:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_replay_that_is_stopped_prints_the_command_that_sends_the_rest(shop: Shop, number: int) -> None:
    async with history(shop, 400) as late:
        process = await replaying_process(shop, "--since", "1h", "--to-queue", "late", "--rate", "50")
        await position_of(process)
        process.send_signal(number)
        _, errors = await process.communicate()
        assert process.returncode == 1
        words = continuing(errors.decode())
        rate = words.index("--rate")
        assert words[rate + 1] == "50"
        del words[rate : rate + 2]
        first = await numbers(late)
        assert 0 < len(first) < 400
        rest = await shop.command(event_commands.events, *words)
        assert rest.stdout == f"position 400 reached, {400 - len(first)} events sent to late\n"
        received = first + await numbers(late)
        assert len(received) == 400
        assert_complete_and_in_order(received, 400)


async def test_after_kill_9_the_last_printed_position_continues_a_replay_without_a_gap(shop: Shop) -> None:
    async with history(shop, 400) as late:
        process = await replaying_process(shop, "--since", "1h", "--to-queue", "late", "--rate", "50")
        position = await position_of(process)
        process.kill()
        await process.wait()
        rest = await shop.command(event_commands.events, "replay", "--after", str(position), "--to-queue", "late")
        assert rest.exit_code == 0
        assert_complete_and_in_order(await numbers(late), 400)


async def test_a_queue_that_becomes_full_is_continued_after_what_it_accepted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.messaging.replay._PAGE", 10)
    limits = {"x-max-length": 45, "x-overflow": "reject-publish"}
    async with history(shop, 100, **limits) as late:
        words, received = ["replay", "--since", "1h", "--to-queue", "late"], list[int]()
        while (result := await shop.command(event_commands.events, *words)).exit_code:
            assert "late refuses messages" in result.output
            received += await numbers(late)
            words = continuing(result.output)
        assert len(received) > 40
        assert_complete_and_in_order(received + await numbers(late), 100)


async def test_a_dry_run_counts_what_would_be_sent_and_sends_nothing(shop: Shop) -> None:
    async with history(shop, 100) as late:
        words = ("replay", "--since", "1h", "--to-queue", "late", "--subject", "item-1", "--subject", "item-2")
        counted = await shop.json(event_commands.events, *words, "--dry-run")
        assert counted == {"events": 29, "first_position": 2, "last_position": 100}
        assert (await late.channel.declare_queue("late", passive=True)).declaration_result.message_count == 0
        assert (await shop.json(event_commands.events, *words))["sent"] == 29
        assert await numbers(late) == [n for n in range(100) if n % 7 in {1, 2}]
        nothing = await shop.command(event_commands.events, *words, "--dry-run", "--until", "2h")
        assert nothing.output == "0 events\n"


@pytest.mark.parametrize("words", [[], ["--since", "1h", "--after", "1"], ["--after", "-1"], ["--rate", "0"]])
async def test_a_replay_needs_one_beginning(shop: Shop, words: list[str]) -> None:
    result = await shop.command(event_commands.events, "replay", "--to-queue", "late", *words)
    assert result.exit_code == 2
