"""Keyed digests for logs."""

import hashlib
import hmac

from common.security.log_digests import LogDigests


def test_a_digest_depends_on_the_text_and_on_the_secret() -> None:
    one = LogDigests(b"s" * 32)
    assert one.of("ada@example.com") == LogDigests(b"s" * 32).of("ada@example.com")
    assert len({one.of("ada@example.com"), one.of("bob@example.com"), LogDigests(b"t" * 32).of("ada@example.com")}) == 3


def test_the_secret_itself_is_not_the_key() -> None:
    text = "ada@example.com"
    digest = LogDigests(b"s" * 32).of(text)
    assert not hmac.new(b"s" * 32, text.encode(), hashlib.sha256).hexdigest().startswith(digest)
    assert not hashlib.sha256(text.encode()).hexdigest().startswith(digest)
