"""Whom a mail server's refusal is about: the address, this mail, or us.

The enhanced status code says so (RFC 3463, and its registry of RFC 5248), not the SMTP command: many servers refuse a
client only when they have heard the recipient.
"""

import re
from enum import Enum
from typing import Final


class About(Enum):
    """What to do: `ADDRESS` fails the mail, `MAIL` tries it again later, `US` also rests the channel."""

    ADDRESS = "the address"
    MAIL = "this mail"
    US = "us"


_ENHANCED: Final = re.compile(r"\b([45])\.(\d{1,3})\.(\d{1,3})\b")
_SENDER: Final = {"1.7", "1.8"}
"""Subject and detail of refusals of our own address, among those of addresses."""
_OF_US: Final = {"3.0", "3.2", "3.5", "4.5", "5.0", "5.1", "5.2", "5.4", "5.5", "5.6"}
"""The server's state and configuration, congestion, and our SMTP."""
_POLICY_ON_ADDRESS: Final = {"7.2", "7.17", "7.18"}
"""A list that only members may write to, and an address that has another owner (RFC 7293 §14)."""
_ABOUT_US: Final = re.compile(
    r"relay|quota|sending paused|rate limit|limit exceeded|too many|not verified|authenticat|blocked using|blacklist",
    re.IGNORECASE,
)
_DISABLED: Final = "2.1"
_FULL: Final = "2.2"
_OUR_CREDENTIALS: Final = {530, 534, 535, 538}
"""RFC 4954 §6."""
_MAILBOX_BUSY: Final = 450


def about(code: int, message: str) -> About:
    """`code` is the response to MAIL FROM, RCPT TO or the content, 400 or above."""
    match = _ENHANCED.search(message)
    subject, status = (match[2], f"{match[2]}.{match[3]}") if match else ("", "")
    is_about_address = (subject in {"1", "2"} and status not in _SENDER) or status in _POLICY_ON_ADDRESS
    is_about_us = code in _OUR_CREDENTIALS or subject == "7" or status in _SENDER | _OF_US or _ABOUT_US.search(message)
    if is_about_us and not is_about_address:
        return About.US
    if status == _FULL or (subject == "2" and status != _DISABLED and "quota" in message.lower()):
        return About.MAIL  # the mailbox is full, for a while
    if code >= 500:
        return About.ADDRESS
    return About.MAIL if is_about_address or code == _MAILBOX_BUSY else About.US
