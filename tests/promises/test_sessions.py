"""Random histories of one person at auth and users: which tokens are valid, at auth and at another service."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import hypothesis.strategies as st
import jwt
import pytest
from hypothesis.stateful import initialize, invariant, rule

from common.db.database import new_id
from common.security.revocation import Denylist
from common.testing.plugin import MakeDatabase
from common.testing.state_machine import AsyncStateMachine, examples, explore, in_loop

from .identity import PASSWORD, Identity, serving
from .session_model import Person, Session, Token

PICK: Final = st.integers(0, 4)
"""Of the sessions or tokens, from the newest."""


@pytest.fixture
async def identity(make_database: MakeDatabase) -> AsyncIterator[Identity]:
    async with serving(make_database) as identity:
        yield identity


def bearer(access_token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {access_token}"}


def claims(access_token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(access_token, options={"verify_signature": False})
    return found


class Sessions(AsyncStateMachine):
    def __init__(self, identity: Identity, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.identity, self.model = identity, Person()
        self.at_auth = self.at_services = 0
        """Number of users' events that auth has processed, and of auth's that the other service has."""

    @initialize()
    @in_loop
    async def begin(self) -> None:
        name = new_id().hex
        self.password = PASSWORD
        admin, person = [await self.identity.sign_up(f"{who}-{name}") for who in ("admin", "ada")]
        await self.identity.promote(admin["id"])
        tokens = await self.identity.token(grant_type="password", username=admin["email"], password=PASSWORD)
        self.admin = bearer(tokens.json()["access_token"])
        self.id, self.email = person["id"], person["email"]
        for _ in range(2):
            await self.start_a_session()

    @rule()
    @in_loop
    async def sign_in(self) -> None:
        await self.start_a_session()

    async def start_a_session(self) -> None:
        answer = await self.identity.token(grant_type="password", username=self.email, password=self.password)
        if not self.model.is_active:
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
            return
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        self.model.sign_in(claims(tokens["access_token"])["sid"], tokens["access_token"], tokens["refresh_token"])

    @rule(number=PICK, used=st.sampled_from([1, 1, 1, 2, 2, 3]))
    @in_loop
    async def refresh(self, number: int, used: int) -> None:
        """With the newest refresh token of a session, the one before, or an older one."""
        session: Session = self.pick(self.model.sessions, number)
        used = min(used, len(session.refresh_tokens))
        expected = self.model.refresh(session, used)
        answer = await self.identity.token(grant_type="refresh_token", refresh_token=session.refresh_tokens[-used])
        if expected is None:
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
            return
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        if expected == "again":
            assert tokens["refresh_token"] == session.refresh_tokens[-1]
        else:
            assert tokens["refresh_token"] not in session.refresh_tokens
            session.refresh_tokens.append(tokens["refresh_token"])
            session.is_repeatable = True
        self.model.issue(session, tokens["access_token"])

    @rule()
    @in_loop
    async def time_passes(self) -> None:
        """No refresh before may be repeated."""
        await self.identity.grace_ends()
        for session in self.model.sessions:
            session.is_repeatable = False

    @rule(number=PICK, used=st.sampled_from([1, 2]))
    @in_loop
    async def revoke_a_refresh_token(self, number: int, used: int) -> None:
        session = self.pick(self.model.sessions, number)
        await self.revoke(session.refresh_tokens[-min(used, len(session.refresh_tokens))], session)

    @rule(number=PICK)
    @in_loop
    async def revoke_an_access_token(self, number: int) -> None:
        token: Token = self.pick(self.model.tokens, number)
        if not token.may_be_void:
            await self.revoke(token.text, None if token.is_void else token.session)

    async def revoke(self, token: str, session: Session | None) -> None:
        answer = await self.identity.auth.post("/revoke", data={"token": token})
        assert answer.status_code == 200, answer.text
        if session is not None:
            session.is_ended = True

    @rule(number=PICK, other=PICK)
    @in_loop
    async def sign_out(self, number: int, other: int) -> None:
        """Of any session, with any token."""
        token, session = self.pick(self.model.tokens, number), self.pick(self.model.sessions, other)
        path = f"/sessions/{session.id}"
        answer = await self.identity.auth.delete(path, headers=bearer(token.text))
        if self.is_refused(token, answer.status_code):
            return
        assert answer.status_code == (404 if session.is_ended else 204)
        session.is_ended = True

    @rule(number=PICK)
    @in_loop
    async def sign_out_everywhere(self, number: int) -> None:
        token = self.pick(self.model.tokens, number)
        answer = await self.identity.auth.delete("/sessions", headers=bearer(token.text))
        if self.is_refused(token, answer.status_code):
            return
        assert answer.status_code == 204
        for session in self.model.sessions:
            session.is_ended = True

    @staticmethod
    def is_refused(token: Token, status: int) -> bool:
        """Whether auth refused the token, which it must if it is void, and must not otherwise."""
        assert token.may_be_void or token.is_void == (status == 401)
        return status == 401

    @rule(role=st.sampled_from(["user", "staff", "admin"]))
    @in_loop
    async def change_the_role(self, role: str) -> None:
        answer = await self.identity.users.patch(f"/users/{self.id}", json={"role": role}, headers=self.admin)
        assert (answer.status_code, answer.json()["role"]) == (200, role)
        if role != self.model.role:
            self.model.change(role=role)

    @rule(is_active=st.booleans())
    @in_loop
    async def change_the_status(self, is_active: bool) -> None:
        action = "reactivate" if is_active else "deactivate"
        answer = await self.identity.users.post(f"/users/{self.id}/{action}", headers=self.admin)
        assert answer.status_code == 200, answer.text
        if is_active != self.model.is_active:
            self.model.change(is_active=is_active)

    @rule(number=PICK, other=PICK)
    def a_refresh_overtakes_the_event_of_a_new_password(self, number: int, other: int) -> None:
        """The person signs in with the new password, and a session of before is refreshed, before auth learns of it."""
        self.change_the_password(number=number)
        self.sign_in()
        self.refresh(number=other, used=1)

    @rule(number=PICK)
    @in_loop
    async def change_the_password(self, number: int) -> None:
        if not self.model.is_active:
            return
        token, new = self.pick(self.model.tokens, number), f"a lighthouse in fog {self.model.version + 100}"
        body = {"current": self.password, "new": new}
        answer = await self.identity.users.put("/me/password", json=body, headers=bearer(token.text))
        if answer.status_code == 401:
            assert token.was_void or token.may_be_void
            return
        assert answer.status_code == 204, answer.text
        assert not token.was_void
        self.password = new
        self.model.change()

    @rule(count=st.sampled_from([1, 1, 9]))
    @in_loop
    async def auth_learns(self, count: int) -> None:
        """Auth processes the next events of users."""
        events = await self.identity.users_events(self.id)
        assert [event.version for event in events] == [*range(1, self.model.version + 1)]
        for event in events[self.at_auth : self.at_auth + count]:
            await self.identity.reaches_auth(event)
            what = event.type.split(".")[2]
            changed = {"role": event.data.get("role"), "except_session": event.data.get("except_session_id")}
            self.model.auth_learns(what, event.version, **changed)
            self.at_auth += 1

    @rule()
    @in_loop
    async def services_learn(self) -> None:
        """The other service receives all events of auth."""
        events = await self.identity.auth_events(self.id)
        for event in events[self.at_services :]:
            self.identity.reaches_services(event)
        self.at_services = len(events)
        self.model.services_learn()

    @rule(number=PICK)
    @in_loop
    async def an_event_is_repeated(self, number: int) -> None:
        """As by a relay that takes over."""
        events = await self.identity.auth_events(self.id)
        if self.at_services:
            self.identity.reaches_services(self.pick(events[: self.at_services], number))

    @rule()
    @in_loop
    async def start_a_service(self) -> None:
        denylist = await self.identity.snapshot()
        for token in self.model.tokens:
            await self.check(token, denylist, is_void=token.is_void)

    @invariant()
    @in_loop
    async def the_other_service_accepts_what_it_must(self) -> None:
        for token in self.model.tokens:
            await self.check(token, self.identity.denylist, is_void=token.was_void)

    async def check(self, token: Token, denylist: Denylist, *, is_void: bool) -> None:
        principal = await self.identity.principal(token.text, denylist)
        if is_void:
            assert principal is None, "the token is void"
        elif not token.may_be_void:
            assert principal is not None, "the token is valid"
            assert principal.roles == {token.role}

    def teardown(self) -> None:
        if len(self.model.tokens) > 1:
            self.auth_learns(count=self.model.version)
            self.services_learn()
            self.the_other_service_accepts_what_it_must()
            self.wait(self.auth_agrees())

    async def auth_agrees(self) -> None:
        valid = []
        for token in self.model.tokens:
            answer = await self.identity.auth.get("/sessions?limit=100", headers=bearer(token.text))
            if not self.is_refused(token, answer.status_code):
                valid.append([item["id"] for item in answer.json()["items"]])
        assert all(listed == [session.id for session in reversed(self.model.live)] for listed in valid)
        events = await self.identity.auth_events(self.id)
        for subject in {event.subject for event in events}:
            versions = [event.version for event in events if event.subject == subject]
            assert versions == [*range(1, len(versions) + 1)]

    @staticmethod
    def pick(items: list[Any], number: int) -> Any:
        return items[-1 - number % len(items)]


@examples(12, 30)
def test_every_history_of_a_person_leaves_the_tokens_valid_that_a_plain_model_says(
    identity: Identity, loop: asyncio.AbstractEventLoop, examples: int
) -> None:
    explore(lambda: Sessions(identity, loop), examples=examples)
