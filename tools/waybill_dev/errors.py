class LocalError(Exception):
    """What went wrong, said to a person: printed without a traceback, exit code 1.

    `log` names the file in which the cause can be read.
    """

    def __init__(self, message: str, *, log: object | None = None) -> None:
        super().__init__(message if log is None else f"{message}\nlog: {log}")
