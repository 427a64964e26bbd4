"""What users' events about a person do to their sessions, in any order, and with logins at the same time."""

import jwt
import pytest

from common.db.database import Database
from common.security.revocation import Denylist, SessionRevoked, SubjectRevoked

from .conftest import PASSWORD, Auth, Happens, Person
from .test_refresh import events, refused
from .test_sessions import bearer, sid


async def is_good(auth: Auth, tokens: dict[str, str]) -> bool:
    return (await auth.http.get("/sessions", headers=bearer(tokens))).status_code == 200


async def is_denied(auth: Auth, database: Database, tokens: dict[str, str]) -> bool:
    """Whether another service, having received all events, denies the token."""
    denylist = Denylist()
    for event_type, _, data in await events(database):
        if event_type == "auth.subject.revoked.v1":
            denylist.revoke_subject(SubjectRevoked.model_validate(data))
        elif event_type == "auth.session.revoked.v1":
            denylist.revoke_session(SessionRevoked.model_validate(data))
    return denylist.denies(await auth.principal(tokens["access_token"]))


@pytest.mark.parametrize("what", ["deactivated", "erased"])
async def test_a_deactivated_or_erased_person_is_signed_out_everywhere(
    auth: Auth, database: Database, happens: Happens, what: str
) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = await auth.sign_in(ada)
    await happens(what, ada, version=2)
    assert await refused(auth, tokens["refresh_token"])
    assert not await is_good(auth, tokens)
    assert await is_denied(auth, database, tokens)
    assert (await events(database))[-1][2]["reason"] == what


async def test_a_login_verified_before_a_deactivation_is_refused_after_it(auth: Auth, happens: Happens) -> None:
    """Users verified the password, then the account was deactivated, and auth processed that event first."""
    ada = auth.users.add("ada@example.com")
    calls = 0

    async def deactivate(person: Person) -> None:
        nonlocal calls
        calls += 1
        await happens("deactivated", person, version=2)
        del auth.users.people[person.email]

    auth.users.on_verified = deactivate
    answer = await auth.token(grant_type="password", username=ada.email, password=PASSWORD)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert calls == 1


async def test_a_deactivation_ends_a_session_started_before_its_event_arrived(auth: Auth, happens: Happens) -> None:
    """Users verified the password, then the account was deactivated, and auth started the session before the event."""
    ada = auth.users.add("ada@example.com", version=1)
    tokens = await auth.sign_in(ada)
    await happens("deactivated", ada, version=2)
    assert not await is_good(auth, tokens)


async def test_a_login_with_an_outdated_verification_is_verified_again(auth: Auth, happens: Happens) -> None:
    ada = auth.users.add("ada@example.com")

    async def promote(person: Person) -> None:
        if person.version == 1:
            person.version, person.role = 2, "staff"
            await happens("role_changed", person, version=2, role="staff")

    auth.users.on_verified = promote
    tokens = await auth.sign_in(ada)
    assert (await auth.principal(tokens["access_token"])).roles == {"staff"}
    assert len(auth.users.requests) == 2


async def test_a_reactivated_person_can_sign_in_again(auth: Auth, happens: Happens) -> None:
    ada = auth.users.add("ada@example.com")
    old = await auth.sign_in(ada)
    await happens("deactivated", ada, version=2)
    await happens("reactivated", ada, version=3)
    ada.version = 3
    assert await is_good(auth, await auth.sign_in(ada))
    assert not await is_good(auth, old)
    assert await refused(auth, old["refresh_token"])


async def test_a_reactivated_person_can_sign_in_before_the_event_arrives(auth: Auth, happens: Happens) -> None:
    ada = auth.users.add("ada@example.com")
    old = await auth.sign_in(ada)
    await happens("deactivated", ada, version=2)
    ada.version = 3
    fresh = await auth.sign_in(ada)
    await happens("reactivated", ada, version=3)
    assert await is_good(auth, fresh)
    assert not await is_good(auth, old)
    await happens("deactivated", ada, version=4)
    assert not await is_good(auth, fresh)


async def test_a_new_role_voids_tokens_with_the_old_one_but_not_the_session(
    auth: Auth, database: Database, happens: Happens
) -> None:
    ada = auth.users.add("ada@example.com", role="admin")
    tokens = await auth.sign_in(ada)
    await happens("role_changed", ada, version=2, role="user")
    assert not await is_good(auth, tokens)
    assert await is_denied(auth, database, tokens)
    fresh = (await auth.refresh(tokens["refresh_token"])).json()
    assert (await auth.principal(fresh["access_token"])).roles == {"user"}
    assert await is_good(auth, fresh)
    assert not await is_denied(auth, database, fresh)


async def test_a_login_after_the_change_survives_its_late_event(
    auth: Auth, database: Database, happens: Happens
) -> None:
    ada = auth.users.add("ada@example.com", version=1)
    old = await auth.sign_in(ada)
    ada.version, ada.role = 2, "staff"
    new = await auth.sign_in(ada)
    await happens("role_changed", ada, version=2, role="staff")
    assert (await is_good(auth, old), await is_good(auth, new)) == (False, True)
    assert (await is_denied(auth, database, old), await is_denied(auth, database, new)) == (True, False)


async def test_a_password_change_keeps_the_session_it_came_from(
    auth: Auth, database: Database, happens: Happens
) -> None:
    ada = auth.users.add("ada@example.com")
    here, there = await auth.sign_in(ada), await auth.sign_in(ada)
    await happens("password_changed", ada, version=2, except_session_id=sid(here))
    assert (await is_good(auth, here), await is_good(auth, there)) == (True, False)
    assert (await is_denied(auth, database, here), await is_denied(auth, database, there)) == (False, True)
    assert await refused(auth, there["refresh_token"])
    assert (await auth.refresh(here["refresh_token"])).status_code == 200


async def test_a_password_change_makes_no_void_token_valid_again(
    auth: Auth, database: Database, happens: Happens
) -> None:
    """A demoted administrator changes the password in the session whose token has just become void."""
    ada = auth.users.add("ada@example.com", role="admin")
    powerful = await auth.sign_in(ada)
    await happens("role_changed", ada, version=2, role="user")
    current = (await auth.refresh(powerful["refresh_token"])).json()
    await happens("password_changed", ada, version=3, except_session_id=sid(powerful))
    assert (await is_good(auth, powerful), await is_good(auth, current)) == (False, True)
    assert (await is_denied(auth, database, powerful), await is_denied(auth, database, current)) == (True, False)
    await happens("password_changed", ada, version=4, except_session_id=sid(powerful))
    assert (await is_good(auth, powerful), await is_good(auth, current)) == (False, True)
    snapshot = (await auth.internal.get("/internal/revocations", headers=await auth.service_token())).json()
    assert snapshot["subjects"] == [
        {
            "subject": str(ada.user_id),
            "min_session_version": 4,
            "except_session_id": sid(powerful),
            "except_session_version": 2,
        }
    ]


async def test_a_password_reset_ends_all_sessions(auth: Auth, happens: Happens) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = await auth.sign_in(ada)
    await happens("password_changed", ada, version=2, except_session_id=None)
    assert not await is_good(auth, tokens)
    assert await refused(auth, tokens["refresh_token"])


async def test_a_login_with_the_new_password_survives_the_late_event(
    auth: Auth, database: Database, happens: Happens
) -> None:
    ada = auth.users.add("ada@example.com", version=1)
    old = await auth.sign_in(ada)
    ada.version = 2
    new = await auth.sign_in(ada)
    await happens("password_changed", ada, version=2)
    assert await refused(auth, old["refresh_token"])
    assert await is_good(auth, new)
    assert not await is_denied(auth, database, new)
    assert (await auth.refresh(new["refresh_token"])).status_code == 200


async def test_a_session_refreshed_after_such_a_login_is_void_everywhere_once_the_late_event_arrives(
    auth: Auth, database: Database, happens: Happens
) -> None:
    """Somebody who has the refresh token uses it between the owner's login and the event of the new password."""
    ada = auth.users.add("ada@example.com", version=1)
    old = await auth.sign_in(ada)
    ada.version = 2
    new = await auth.sign_in(ada)
    refreshed = (await auth.refresh(old["refresh_token"])).json()
    await happens("password_changed", ada, version=2)
    for tokens, is_void in ((old, True), (refreshed, True), (new, False)):
        assert await is_good(auth, tokens) is not is_void
        assert await is_denied(auth, database, tokens) is is_void


async def test_events_out_of_order_end_in_the_same_state(auth: Auth, happens: Happens) -> None:
    ada = auth.users.add("ada@example.com")
    old = await auth.sign_in(ada)
    await happens("reactivated", ada, version=3)
    await happens("deactivated", ada, version=2)
    ada.version = 3
    assert not await is_good(auth, old)
    assert await is_good(auth, await auth.sign_in(ada))


async def test_an_event_about_a_person_who_never_signed_in_counts_at_their_first_login(
    auth: Auth, database: Database, happens: Happens
) -> None:
    ada = auth.users.add("ada@example.com", role="staff", version=1)
    await happens("deactivated", ada, version=2)
    del auth.users.people[ada.email]
    answer = await auth.token(grant_type="password", username=ada.email, password=PASSWORD)
    assert answer.json()["error"] == "invalid_grant"
    assert not [event for event in await events(database) if event[0] == "auth.subject.revoked.v1"]


async def test_a_revoked_subjects_events_have_versions_without_a_gap(
    auth: Auth, database: Database, happens: Happens
) -> None:
    ada = auth.users.add("ada@example.com")
    await auth.sign_in(ada)
    await happens("role_changed", ada, version=2, role="staff")
    await happens("password_changed", ada, version=5)
    revocations = [event for event in await events(database) if event[0] == "auth.subject.revoked.v1"]
    assert [version for _, version, _ in revocations] == [1, 2]


async def test_the_session_version_in_a_token_rises_with_each_revocation(auth: Auth, happens: Happens) -> None:
    ada = auth.users.add("ada@example.com")
    first = await auth.sign_in(ada)
    await happens("role_changed", ada, version=2, role="staff")
    second = (await auth.refresh(first["refresh_token"])).json()
    versions = [jwt.decode(t["access_token"], options={"verify_signature": False})["sv"] for t in (first, second)]
    assert versions == [1, 2]
