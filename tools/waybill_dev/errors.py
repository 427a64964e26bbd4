class LocalError(Exception):
    """An expected failure. Its message is printed for a person, without a traceback, and the exit code is 1.

    `log` names the file that holds the cause.
    """

    def __init__(self, message: str, *, log: object | None = None) -> None:
        super().__init__(message if log is None else f"{message}\nlog: {log}")
