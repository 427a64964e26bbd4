"""pamqp's decoder with and without `pamqp_patch`: a release that does not need the patch, or breaks it, fails here."""

import subprocess
import sys

import pytest
from pamqp import decode

NOT_UTF8 = r"""
from pamqp import encode, header
from pamqp.commands import Basic
properties = Basic.Properties(message_id="x")
frame = header.ContentHeader(0, 0, properties).marshal().replace(b"\x01x", b"\x01\xff")
{install}
decoded = header.ContentHeader(0, 0, Basic.Properties())
decoded.unmarshal(frame)
print(sorted(decoded.properties.headers))
"""


def run(install: str) -> subprocess.CompletedProcess[str]:
    """Runs the program in its own process, because the patch applies to a whole process."""
    program = NOT_UTF8.format(install=install)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program


def test_without_the_patch_properties_that_are_not_utf8_raise() -> None:
    assert "UnicodeDecodeError" in run("").stderr


def test_with_the_patch_such_properties_are_delivered_undecoded() -> None:
    done = run("from common.messaging import pamqp_patch; pamqp_patch.install()")
    assert done.stdout == "['x-waybill-unreadable']\n", done.stderr


@pytest.mark.parametrize("name", ["METHODS", "short_str"])
def test_the_names_that_the_patch_replaces_exist(name: str) -> None:
    assert hasattr(decode, name)
