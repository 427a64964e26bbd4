"""Renders the pages. They need no script, load nothing, and escape what they show."""

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from auth.scopes import DELEGABLE
from auth.signing_in.parameters import AuthorizationRequest
from common.web.pages import STYLE

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATES.globals["style"] = Markup(STYLE)  # noqa: S704 - a constant of ours


def sign_in_page(
    *, form: str, request: AuthorizationRequest | None, username: str = "", fault: str | None = None
) -> str:
    """`form` is the sealed state, `fault` what was wrong with the attempt before."""
    name = None if request is None else request.client.name
    hint = "" if request is None else request.login_hint or ""
    return _render("sign_in.html", form=form, client=name, username=username or hint, fault=fault)


def code_page(*, form: str, fault: str | None = None) -> str:
    return _render("code.html", form=form, fault=fault)


def consent_page(*, form: str, request: AuthorizationRequest, other_account: str | None) -> str:
    """`other_account` is where another person signs in for the same request, if the page shall offer that."""
    wishes = [DELEGABLE[scope] for scope in request.scopes if scope != "openid"]
    return _render(
        "consent.html",
        form=form,
        client=request.client.name,
        wishes=wishes or [DELEGABLE["openid"]],
        destination=request.redirect_uri.partition("?")[0],
        other_account=other_account,
    )


def sign_out_page(*, form: str) -> str:
    return _render("sign_out.html", form=form)


def signed_in_page() -> str:
    return _render("signed_in.html")


def message_page(title: str, text: str) -> str:
    return _render("message.html", title=title, text=text)


def _render(template: str, **values: Any) -> str:
    return _TEMPLATES.get_template(template).render(values)
