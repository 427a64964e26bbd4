"""Mail over SMTP (RFC 5321), on connections that are reused."""

import contextlib
import time
from typing import Final, assert_never

import aiosmtplib

from notifier.delivery.errors import ChannelError, ChannelUnavailable, Deferred, Refused
from notifier.mail.message import Mail
from notifier.mail.refusals import About, about
from notifier.settings import Settings

_TIMEOUT: Final = 10.0
_ACCEPTANCE_TIMEOUT: Final = 60.0
"""Seconds to wait for the response to the content. Long, since giving up early sends it twice (RFC 5321 §4.5.3.2.6)."""
_IDLE_TIMEOUT: Final = 10.0
"""Seconds after which an unused connection is closed."""
_REFUSED_DELAY: Final = 15.0
"""Seconds until a mail is tried again that was refused because of us. Other mails are tried before."""


class MailChannel:
    """Sends one mail per call. Concurrent calls use a connection each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[tuple[aiosmtplib.SMTP, float]] = []

    async def send(self, mail: Mail) -> None:
        """Returns once the server has accepted responsibility for the mail. Raises a `ChannelError`."""
        connection, is_reused = await self._connection()
        try:
            try:
                await self._begin(connection, mail)
                await self._transfer(connection, mail)
            except ChannelUnavailable:
                if not is_reused:
                    raise
                # A server may close an idle connection at any time, or want no more mails on one. That is no reason to
                # believe it unavailable.
                connection.close()
                connection = await self._connect()
                await self._begin(connection, mail)
                await self._transfer(connection, mail)
        except (Deferred, Refused):
            await self._reset(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._idle.append((connection, time.monotonic()))

    async def close_idle(self) -> None:
        """Closes connections that were not used for a while."""
        while self._idle and time.monotonic() - self._idle[0][1] > _IDLE_TIMEOUT:
            await _quit(self._idle.pop(0)[0])

    async def close(self) -> None:
        while self._idle:
            await _quit(self._idle.pop()[0])

    async def _connection(self) -> tuple[aiosmtplib.SMTP, bool]:
        while self._idle:
            connection, _ = self._idle.pop()
            if connection.is_connected:
                return connection, True
        return await self._connect(), False

    async def _connect(self) -> aiosmtplib.SMTP:
        settings = self._settings
        connection = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
            use_tls=settings.smtp_tls == "implicit",
            start_tls=settings.smtp_tls == "starttls",
            local_hostname=settings.sender.domain,  # the default is a DNS lookup, which may take seconds
            timeout=_TIMEOUT,
        )
        try:
            await connection.connect()
            await connection.ehlo()
        except (aiosmtplib.SMTPException, OSError) as error:
            connection.close()
            raise ChannelUnavailable(_cause(error)) from error
        return connection

    async def _begin(self, connection: aiosmtplib.SMTP, mail: Mail) -> None:
        """A refusal at this stage concerns the sender, not the mail, whatever its code."""
        try:
            await connection.mail(mail.sender)
        except aiosmtplib.SMTPResponseException as error:
            raise ChannelUnavailable(_cause(error), retry_in=_REFUSED_DELAY) from error
        except OSError as error:  # includes timeouts and lost connections, those of aiosmtplib too
            raise ChannelUnavailable(_cause(error)) from error

    async def _transfer(self, connection: aiosmtplib.SMTP, mail: Mail) -> None:
        try:
            await connection.rcpt(mail.recipient)
            await connection.data(mail.content, timeout=_ACCEPTANCE_TIMEOUT)
        except aiosmtplib.SMTPResponseException as error:
            raise _refusal(error) from error
        except ValueError as error:
            raise Refused(f"invalid address: {error}") from error
        except OSError as error:
            # The mail may have been accepted and only the response lost. It is sent again, with the same Message-ID.
            connection.close()
            raise Deferred(_cause(error)) from error

    async def _reset(self, connection: aiosmtplib.SMTP) -> None:
        """Aborts the mail transaction (RFC 5321 §4.1.1.5); closes the connection if that fails."""
        try:
            await connection.rset()
        except (aiosmtplib.SMTPException, OSError):
            connection.close()
        else:
            self._idle.append((connection, time.monotonic()))


async def _quit(connection: aiosmtplib.SMTP) -> None:
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):
        await connection.quit(timeout=2)
    connection.close()


def _refusal(error: aiosmtplib.SMTPResponseException) -> ChannelError:
    match about(error.code, error.message):
        case About.ADDRESS:
            return Refused(_cause(error))
        case About.MAIL:
            return Deferred(_cause(error))
        case About.US:
            return ChannelUnavailable(_cause(error), retry_in=_REFUSED_DELAY)
        case unknown:
            assert_never(unknown)


def _cause(error: Exception) -> str:
    """The server's response, or else the error."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    return f"{type(error).__name__}: {error}"
