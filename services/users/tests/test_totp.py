"""Codes of authenticator apps: which are good, and that each is good once."""

import asyncio
from datetime import UTC, datetime

import pyotp
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import text

from common.db.database import Database, new_id
from common.security.sealing import KeyEncryption
from common.testing.state_machine import AsyncStateMachine, examples, explore, in_loop
from users.credentials import recovery_codes, second_factor, totp

KEY = KeyEncryption(b"k" * 32)
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""That of RFC 6238's appendix B, `12345678901234567890`, in base32."""
START = 37_037_036
"""The step of its second vector."""


def moment(step: int) -> datetime:
    return datetime.fromtimestamp(step * totp.STEP, UTC)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(59, "287082"), (1_111_111_109, "081804"), (1_111_111_111, "050471"), (20_000_000_000, "353130")],
)
def test_codes_are_those_of_rfc_6238(seconds: int, code: str) -> None:
    """Its vectors have eight digits, of which the last six are ours."""
    now = datetime.fromtimestamp(seconds, UTC)
    assert totp.matching_step(SECRET, code, now=now, after=None) == seconds // 30


def test_a_code_is_good_one_step_early_and_one_step_late() -> None:
    code = pyotp.TOTP(SECRET).generate_otp(START)
    found = {step: totp.matching_step(SECRET, code, now=moment(START + step), after=None) for step in range(-3, 4)}
    assert {step for step, match in found.items() if match == START} == {-1, 0, 1}


def test_an_app_reads_secret_and_account_from_the_uri() -> None:
    secret = totp.new_secret()
    app = pyotp.parse_uri(totp.otpauth_uri(secret, account="ada+1@example.com"))
    assert (app.secret, app.name, app.issuer) == (secret, "ada+1@example.com", "Waybill")
    assert isinstance(app, pyotp.TOTP)
    assert (app.digits, app.interval, app.digest().name) == (6, 30, "sha1")
    assert len(secret) == 32  # 160 bits


def test_recovery_codes_are_unguessable_and_read_as_people_type_them() -> None:
    codes = recovery_codes.new_codes()
    assert len(set(codes)) == 10
    assert {len(code.replace("-", "")) * 5 for code in codes} == {120}
    typed = codes[0].upper().replace("-", " ")
    assert recovery_codes.digest(f" {typed} ") == recovery_codes.digest(codes[0])
    assert recovery_codes.digest(codes[0]) != recovery_codes.digest(codes[1])


class Clock(AsyncStateMachine):
    """An authenticator in the database, and a plain model: the last step whose code was accepted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, database: Database) -> None:
        super().__init__(loop)
        self._database, self._user = database, new_id()
        self._now, self._last = START, -1
        self.wait(self._create())

    async def _create(self) -> None:
        async with self._database.transaction() as session:
            await session.execute(
                text("""INSERT INTO users VALUES (:id, 'Ann', :email, false, '$argon2id$', 'user', 'active', NULL, 1,
                        now(), now())"""),
                {"id": self._user, "email": f"{self._user}@example.com"},
            )
            session.add(second_factor.new_authenticator(self._user, SECRET, KEY, moment(START)))

    @rule(steps=st.integers(-1, 3))
    def time_passes(self, steps: int) -> None:
        """A replica's clock may also be behind another's."""
        self._now += steps

    @rule(offset=st.integers(-3, 3))
    @in_loop
    async def tries(self, offset: int) -> None:
        step = self._now + offset
        code = pyotp.TOTP(SECRET).generate_otp(step)
        async with self._database.transaction() as session:
            authenticator = await second_factor.lock(session, self._user)
            assert authenticator is not None
            accepted = await second_factor.use_totp(session, authenticator, code, KEY, now=moment(self._now))
        expected = abs(offset) <= 1 and step > self._last
        assert accepted == expected
        if accepted:
            self._last = step


@examples(20, 100)
def test_a_code_is_good_once_and_none_of_an_earlier_step_after_it(
    database: Database, loop: asyncio.AbstractEventLoop, examples: int
) -> None:
    explore(lambda: Clock(loop, database), examples=examples, steps=20)
