"""What `./dev --help` lists."""

import click
import pytest

from waybill_dev.__main__ import COMMANDS, Commands

GROUP = Commands("dev")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_begins_with_a_short_whole_sentence(name: str) -> None:
    command = GROUP.get_command(click.Context(GROUP), name)
    assert command is not None
    listed = command.get_short_help_str(limit=60)
    assert listed.endswith(".")
    assert not listed.endswith("...")
