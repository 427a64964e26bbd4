"""Limits the mails to an address that nobody verified: anyone may sign up with a stranger's.

The limit holds for an address and a day (UTC), whatever accounts use it, one after the other. News of orders have one
limit, and those of security one for each kind: many of one kind, which somebody with a token may cause, keep back none
of another. Links and welcomes are limited by users.
"""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, get_args

from sqlalchemy.ext.asyncio import AsyncSession

from notifier.mail import unverified_queries as queries
from notifier.models import LinkKind, preference_of
from notifier.queries import ClaimedDelivery

CAUSE: Final = "the address is not verified"
_PURPOSE: Final = b"mails to unverified addresses"


class UnverifiedLimit:
    """`most` mails of each sort. `key` keeps the stored digests from being compared with those of known addresses."""

    def __init__(self, key: bytes, *, most: int) -> None:
        self._key = hmac.digest(key, _PURPOSE, hashlib.sha256)
        self._most = most

    async def admit(self, session: AsyncSession, claimed: Sequence[ClaimedDelivery]) -> Sequence[ClaimedDelivery]:
        """Returns the deliveries that may be sent. The others are held until the address is verified."""
        limited = [each for each in claimed if self._is_limited(each)]
        if not limited:
            return claimed
        # Locked, so that a verification releases what is held here.
        is_verified = await queries.lock_verified(session, {each.user_id for each in limited})
        to_count: dict[bytes, list[ClaimedDelivery]] = defaultdict(list)
        held, busy = [], []
        for each in limited:
            if each.user_id not in is_verified:
                busy.append(each)
            elif not is_verified[each.user_id]:
                to_count[self._digest(each)].append(each)
        counts = await queries.count_mails(session, {address: len(mails) for address, mails in to_count.items()})
        for address, mails in to_count.items():
            room = self._most - (counts[address] - len(mails))
            held += mails[max(0, room) :]
        await queries.hold(session, [each.id for each in held], cause=CAUSE)
        await queries.release(session, [each.id for each in busy])
        refused = {each.id for each in (*held, *busy)}
        return [each for each in claimed if each.id not in refused]

    def _is_limited(self, claimed: ClaimedDelivery) -> bool:
        """Counts a mail at its first attempt alone. An attempt that was none has left its cause."""
        is_first = claimed.attempts == 1 and claimed.cause is None
        has_limit = claimed.kind not in (*get_args(LinkKind), "welcome")
        return is_first and has_limit and not claimed.is_verified

    def _digest(self, claimed: ClaimedDelivery) -> bytes:
        sort = preference_of(claimed.kind) or claimed.kind
        return hmac.digest(self._key, f"{sort} {claimed.email}".encode(), hashlib.sha256)
