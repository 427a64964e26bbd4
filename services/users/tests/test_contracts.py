"""What other programs rely on: the fields of events, and the API's description."""

from typing import Any

import jsonschema
import pyotp
import pytest

from common.messaging.asyncapi import event_types, schema
from users import events

FIELDS = {
    "users.user.registered.v1": {"user_id", "name", "email", "role", "send_welcome"},
    "users.user.updated.v1": {"user_id", "name", "email", "changed"},
    "users.user.role_changed.v1": {"user_id", "role"},
    "users.user.email_verified.v1": {"user_id"},
    "users.user.password_changed.v1": {"user_id", "except_session_id", "by"},
    "users.user.email_reverted.v1": {"user_id", "email"},
    "users.user.authenticator_changed.v1": {"user_id", "change"},
    "users.user.deactivated.v1": {"user_id"},
    "users.user.reactivated.v1": {"user_id"},
    "users.user.erased.v1": {"user_id"},
    "users.audit.recorded.v1": {"actor", "action", "subject", "detail", "request_id"},
    "users.secret_link.requested.v1": {"link_id", "user_id", "purpose"},
}


def test_these_events_are_published_and_no_others() -> None:
    assert {event.type: set(event.model_fields) for event in event_types(events)} == FIELDS


async def test_every_recorded_event_fits_its_published_schema(world: Any) -> None:
    person = await world.sign_up(age=34)
    headers, admin = world.bearer(person), world.bearer(admin=True)
    await world.public.patch("/me", json={"name": "Anna"}, headers=headers)
    await world.public.post("/email-verifications", headers=headers)
    [link] = await world.rows("SELECT data FROM outbox WHERE type LIKE 'users.secret_link.%'")
    token = (await world.issue(link["data"]["link_id"])).json()["token"]
    await world.public.post("/email-verifications/confirm", json={"token": token})
    await world.request_email(person, "elsewhere@example.com")
    await world.use("/email-changes/revert", await world.mailed(person, "revert_email"))
    secret = (await world.public.post("/me/authenticators/totp", headers=headers)).json()["secret"]
    body = {"code": pyotp.TOTP(secret).now()}
    await world.public.post("/me/authenticators/totp/confirm", json=body, headers=headers)
    body = {"current": world.password, "new": "another lighthouse 8"}
    await world.public.put("/me/password", json=body, headers=headers)
    await world.public.patch(f"/users/{person['id']}", json={"role": "staff"}, headers=admin)
    await world.public.post(f"/users/{person['id']}/deactivate", headers=admin)
    await world.public.post(f"/users/{person['id']}/reactivate", headers=admin)
    await world.public.delete("/me", headers=headers)
    recorded = await world.rows("SELECT type, subject, version, data FROM outbox ORDER BY id")
    assert {event["type"] for event in recorded} == set(FIELDS)
    schemas = {event.type: schema(event) for event in event_types(events)}
    for event in recorded:
        jsonschema.validate(event["data"], schemas[event["type"]])
    versions = [event["version"] for event in recorded if event["subject"] == person["id"]]
    assert versions == list(range(1, 11))


OPERATIONS = {
    ("post", "/users"): {"201", "409", "422"},
    ("get", "/users"): {"200", "401", "403", "400", "422"},
    ("get", "/users/{user_id}"): {"200", "401", "403", "404", "422"},
    ("get", "/me/authenticators"): {"200", "401", "403"},
    ("post", "/me/authenticators/totp"): {"201", "401", "403", "404", "409"},
    ("post", "/me/authenticators/totp/confirm"): {"200", "401", "403", "404", "422", "429"},
    ("delete", "/me/authenticators/totp"): {"204", "401", "403", "404"},
    ("post", "/email-changes/confirm"): {"204", "400", "409", "422"},
    ("post", "/email-changes/revert"): {"204", "400", "409", "422"},
    ("patch", "/users/{user_id}"): {"200", "401", "403", "404", "409", "422"},
    ("post", "/users/{user_id}/deactivate"): {"200", "401", "403", "404", "409", "422"},
    ("post", "/users/{user_id}/reactivate"): {"200", "401", "403", "404", "422"},
    ("get", "/me"): {"200", "401", "403", "404"},
    ("patch", "/me"): {"200", "401", "403", "404", "409", "422", "429"},
    ("delete", "/me"): {"204", "401", "403", "404", "409"},
    ("put", "/me/password"): {"204", "401", "403", "404", "422", "429"},
    ("post", "/email-verifications"): {"202", "401", "403", "404"},
    ("post", "/email-verifications/confirm"): {"204", "400", "422"},
    ("post", "/password-resets"): {"202", "422"},
    ("post", "/password-resets/confirm"): {"204", "400", "422"},
}


@pytest.fixture
async def described(world: Any) -> dict[str, Any]:
    document: dict[str, Any] = (await world.public.get("/openapi.json")).json()
    return document


async def test_the_api_describes_every_operation_with_what_it_answers(described: Any) -> None:
    found = {
        (method, path): set(operation["responses"])
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert set(found) == set(OPERATIONS)
    for operation, statuses in OPERATIONS.items():
        assert statuses | {"500", "503"} <= found[operation], operation


async def test_an_account_is_described_with_the_fields_it_has(described: Any) -> None:
    shown = described["components"]["schemas"]["UserOut"]
    names = {"id", "name", "email", "email_verified", "pending_email", "role", "status", "age"}
    assert set(shown["properties"]) == set(shown["required"]) == names | {"created_at", "updated_at"}


async def test_optional_changes_are_described_without_a_null_they_would_refuse(described: Any) -> None:
    change = described["components"]["schemas"]["ProfileChange"]
    assert change.get("required", []) == []
    assert change["additionalProperties"] is False
    assert {"default": None}.items() not in change["properties"]["name"].items()
    assert change["properties"]["name"]["type"] == "string"
