"""Ways to reach a person, and the ways in which one does not get through."""


class NothingToSend(Exception):
    """There is nothing to send any more."""


class ChannelError(Exception):
    """Its text is the cause, as it is kept with the delivery."""


class Refused(ChannelError):
    """The other side will never take this message."""


class Deferred(ChannelError):
    """The other side may take this message later, or it is not known whether it did."""


class ChannelUnavailable(ChannelError):
    """Nobody is there who could take any message: no message's fault."""
