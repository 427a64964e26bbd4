"""The refusals of a feed."""

from common.errors import Gone, TooManyRequests


class HistoryGone(Gone):
    """The reader's last event is not kept any more, was never published, or is hidden from the reader."""

    code, title = "history_gone", "The feed cannot continue after this event"

    def __init__(self) -> None:
        super().__init__("This event is not among those that are kept for you. Begin again, without it.")


class TooManyStreams(TooManyRequests):
    code, title = "too_many_streams", "Too many open streams"

    def __init__(self, most: int) -> None:
        super().__init__(f"At most {most} streams can be open at once. Close one, or follow several orders with one.")
