"""The OpenAPI document of an API, with every status of an operation and the way to sign in."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from common.web.problems import PROBLEM_TYPE, TITLES, Problem

SECURITY_SCHEME: Final = "password"
_REF: Final = "#/components/schemas/"
_PROBLEM: Final = {"content": {PROBLEM_TYPE: {"schema": {"$ref": _REF + "Problem"}}}}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declares an operation's further statuses: `@router.get("/orders/{id}", responses=responses(304, 404))`.

    The route class adds the others: 400, 413, 415 and 422 of a body, 422 of parameters, the `statuses` of guards and
    other dependencies, 500 and 503.
    """
    return {status: {"description": TITLES[status][1], **(_PROBLEM if status >= 400 else {})} for status in statuses}


def security(scopes: Sequence[str]) -> dict[str, Any]:
    """The `security` of an operation that needs a bearer token."""
    return {"security": [{SECURITY_SCHEME: list(scopes)}]}


def document(app: FastAPI, *, has_password_grant: bool = True) -> dict[str, Any]:
    """The document, in a stable order so that its committed copy shows only real changes."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    definition = Problem.model_json_schema(mode="serialization", ref_template=_REF + "{model}")
    schemas.update(definition.pop("$defs"))
    schemas["Problem"] = definition
    components["schemas"] = dict(sorted(schemas.items()))
    requirements = [
        requirement
        for path in schema["paths"].values()
        for operation in path.values()
        for requirement in operation.get("security", ())
    ]
    if requirements:
        scopes = {scope for requirement in requirements for scope in requirement[SECURITY_SCHEME]}
        components["securitySchemes"] = {
            SECURITY_SCHEME: _scheme(sorted(scopes), has_password_grant=has_password_grant)
        }
    return schema


def _scheme(scopes: Sequence[str], *, has_password_grant: bool) -> dict[str, Any]:
    """RFC 6749 §4.1, and §4.3 where it is on, so that the page's Authorize button can sign in.

    The addresses are relative to the page's origin.
    """
    named = dict.fromkeys(scopes, "")
    flows: dict[str, Any] = {
        "authorizationCode": {"authorizationUrl": "/authorize", "tokenUrl": "/token", "scopes": named}
    }
    if has_password_grant:
        flows["password"] = {"tokenUrl": "/token", "scopes": named}
    return {
        "type": "oauth2",
        "description": "Sign in on a page of its own, or with your e-mail address as username. The client fields may "
        "stay as they are.",
        "flows": flows,
    }
