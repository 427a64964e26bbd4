"""Which redirect URIs a client may register, and which URI of a request is one of them (RFC 6749 §3.1.2, RFC 8252)."""

import re
from collections.abc import Iterable
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

_MAX_LENGTH: Final = 2000
_CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")
"""RFC 3986 §2 without `#`: a redirect URI has no fragment (RFC 6749 §3.1.2)."""
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LOOPBACK: Final = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::([0-9]{1,5}))?((?:[/?].*)?)")
_PRIVATE_SCHEME: Final = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")
"""A reversed domain name, as `com.example.app` (RFC 8252 §7.1). One without a dot may be `javascript` or `data`."""


def registrable(uri: str) -> str:
    """The URI unchanged. Raises ValueError with a sentence for one that no client may have."""
    if len(uri) > _MAX_LENGTH or not _CHARACTERS.fullmatch(uri):
        raise ValueError("not an absolute URI without a fragment")
    parts = urlsplit(uri)  # raises ValueError, too
    if parts.netloc and (not _HOST.fullmatch(parts.netloc) or parts.port == 0):
        raise ValueError("the host must be a name or an address, without user information")
    if parts.scheme == "https" and parts.netloc:
        return uri
    if parts.scheme == "http":
        if _without_port(uri) is None:
            raise ValueError("http:// is only for http://127.0.0.1 and http://[::1]; use https://")
        return uri
    if not _PRIVATE_SCHEME.fullmatch(parts.scheme) or not (parts.netloc or parts.path):
        raise ValueError(
            "must begin with https://, http://127.0.0.1, http://[::1] or a scheme such as com.example.app:/"
        )
    return uri


RedirectUri = Annotated[str, Field(min_length=1, max_length=_MAX_LENGTH), AfterValidator(registrable)]


def is_registered(uri: str, registered: Iterable[str]) -> bool:
    """Whether it is one of them, compared as text. On loopback the port is free (RFC 8252 §7.3)."""
    known = frozenset(registered)
    if uri in known:
        return True
    loopback = _without_port(uri)
    return loopback is not None and loopback in map(_without_port, known)


def policy_source(uri: str) -> str:
    """The registered URI's origin as a source of a content security policy, or its scheme where that has no origin."""
    parts = urlsplit(uri)
    if parts.scheme in {"https", "http"} and "[" not in parts.netloc:  # CSP 3 §2.3.1 knows no IPv6 addresses
        return f"{parts.scheme}://{parts.netloc}"
    return f"{parts.scheme}:"


def _without_port(uri: str) -> str | None:
    """A loopback URI without its port. None for any other URI."""
    found = _LOOPBACK.fullmatch(uri)
    if found is None or not _CHARACTERS.fullmatch(uri):
        return None
    origin, port, rest = found.groups()
    return f"{origin}{rest}" if port is None or 0 < int(port) < 65536 else None
