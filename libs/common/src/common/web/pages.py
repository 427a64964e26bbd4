"""What our few HTML pages share: one stylesheet, and headers that let a page load and send nothing else."""

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Final

STYLE: Final = (importlib.resources.files("common.web") / "assets" / "pages.css").read_text()
"""Goes between `<style>` and `</style>` as it is: the policy allows it by its hash."""


def page_headers(*, form_targets: Sequence[str] = ("'none'",), script: str | None = None) -> Mapping[str, str]:
    """Headers of a page. `form_targets` are CSP sources that its forms may lead to, redirects included.

    `script` is the page's inline script, which may then call this origin.
    """
    scripts = "" if script is None else f"script-src {_hash(script)}; connect-src 'self'; "
    return {
        "Content-Security-Policy": f"default-src 'none'; {scripts}style-src {_hash(STYLE)}; base-uri 'none'; "
        f"form-action {' '.join(form_targets)}; frame-ancestors 'none'",
        # Not `no-referrer`: with it browsers send `Origin: null` with our own forms.
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _hash(inline: str) -> str:
    """A source that allows one inline element (CSP 3 §6.7.3)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
