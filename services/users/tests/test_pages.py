"""The pages that links in mails lead to."""

import base64
import hashlib
import re
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/email-verifications/page", "/email-verifications/confirm"),
        ("/password-resets/page", "/password-resets/confirm"),
        ("/email-changes/page", "/email-changes/confirm"),
        ("/email-changes/revert-page", "/email-changes/revert"),
    ],
)
async def test_a_page_spends_the_link_and_runs_nothing_but_its_own_script(
    world: Any, path: str, operation: str
) -> None:
    answer = await world.public.get(path, params={"token": "a-secret"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f'data-path="{operation}"' in answer.text
    assert "a-secret" not in answer.text
    assert "://" not in answer.text
    (script,) = re.findall("<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
    assert (answer.headers["Referrer-Policy"], answer.headers["Cache-Control"]) == ("no-referrer", "no-store")
    schema = (await world.public.get("/openapi.json")).json()
    assert path not in schema["paths"]
    assert operation in schema["paths"]
