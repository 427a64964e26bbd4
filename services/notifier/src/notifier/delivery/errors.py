"""Why a delivery did not succeed."""

from dataclasses import dataclass
from typing import Final

from notifier.delivery.single_line import single_line

_MAX_CAUSE: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver responded."""

    status: int
    text: str
    """The beginning of the body."""
    retry_after: float | None = None
    """Seconds after which the receiver asks to be tried again (RFC 9110 §10.2.3)."""


class NothingToSend(Exception):
    """The delivery is no longer needed."""


class ChannelError(Exception):
    """Its text is recorded as the delivery's cause: one line of at most 300 characters, since a server may send any."""

    def __init__(self, cause: str, *, answer: Answer | None = None) -> None:
        super().__init__(single_line(cause)[:_MAX_CAUSE])
        self.answer = answer


class Refused(ChannelError):
    """The receiver will never accept this message."""


class Deferred(ChannelError):
    """The receiver may accept this message later, or may have accepted it already."""


class ChannelUnavailable(ChannelError):
    """No message can be sent at the moment, so this one is not at fault."""

    def __init__(self, cause: str, *, retry_in: float = 0.0) -> None:
        """`retry_in` seconds pass before this message is tried again; others may be, once the channel has rested."""
        super().__init__(cause)
        self.retry_in = retry_in
