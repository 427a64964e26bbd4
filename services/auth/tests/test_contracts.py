"""Auth's models of users' events against the examples that users commits as its contract."""

import json
from pathlib import Path
from typing import Any

import pytest

from auth.consumers import handlers
from auth.events import SessionRevoked, SubjectRevoked
from common.db.database import new_id, utc_now
from common.messaging.asyncapi import example
from common.messaging.cloudevents import Envelope
from common.security import revocation

EVENTS = Path(__file__).parents[3] / "contracts" / "events"
CONSUMED = handlers.types


def test_auth_consumes_every_event_that_changes_access() -> None:
    assert CONSUMED == [
        "users.user.deactivated.v1",
        "users.user.email_reverted.v1",
        "users.user.erased.v1",
        "users.user.password_changed.v1",
        "users.user.reactivated.v1",
        "users.user.role_changed.v1",
    ]


def published(event_type: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((EVENTS / f"{event_type}.schema.json").read_text())
    return schema


def read(event_type: str, data: dict[str, Any]) -> Any:
    received = handlers.decode(Envelope(new_id(), event_type, "subject", 1, utc_now(), json.dumps(data)))
    assert received is not None
    return received.data


@pytest.mark.parametrize("event_type", CONSUMED)
def test_the_producers_example_is_accepted(event_type: str) -> None:
    [example] = published(event_type)["examples"]
    assert read(event_type, example).model_dump(mode="json").items() <= example.items()


@pytest.mark.parametrize("event_type", CONSUMED)
def test_optional_fields_may_be_missing(event_type: str) -> None:
    schema = published(event_type)
    [example] = schema["examples"]
    assert read(event_type, {name: example[name] for name in schema["required"]})


@pytest.mark.parametrize("event_type", CONSUMED)
def test_unknown_fields_are_ignored(event_type: str) -> None:
    [example] = published(event_type)["examples"]
    assert read(event_type, {**example, "added_later": {"any": "thing"}}) == read(event_type, example)


def test_every_service_accepts_auths_revocations() -> None:
    ended = revocation.SessionRevoked.model_validate(example(SessionRevoked))
    revoked = revocation.SubjectRevoked.model_validate(example(SubjectRevoked))
    assert ended.session_id == example(SessionRevoked)["session_id"]
    assert revoked.model_dump().items() <= example(SubjectRevoked).items()
    assert (SessionRevoked.type, SubjectRevoked.type) == (revocation.SESSION_REVOKED, revocation.SUBJECT_REVOKED)
