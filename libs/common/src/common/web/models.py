"""Base classes of request and answer bodies."""

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator
from pydantic_core import PydanticCustomError

UNSTORABLE: Final = "unstorable_text"
UNSTORABLE_MESSAGE: Final = "Text must not contain NUL or unpaired surrogates"


class Model(BaseModel):
    """Base of answers, built from an object's attributes (such as an ORM row's) or from a mapping."""

    model_config = ConfigDict(frozen=True, from_attributes=True, hide_input_in_errors=True)


class StrictModel(BaseModel):
    """Base of request bodies. Refuses unknown fields, NUL and unpaired surrogates; strips and changes nothing.

    PostgreSQL's `text` can store neither NUL nor a surrogate, so either would otherwise fail the insert with a 500.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="after")
    def _storable_text(self) -> Self:
        for value in self.__dict__.values():
            # The common cases are inline because this runs for every model of every request.
            if type(value) is str:
                if value.isascii() and "\x00" not in value:
                    continue
            elif value is None or type(value) is int:
                continue
            if not _storable(value):
                raise PydanticCustomError(UNSTORABLE, UNSTORABLE_MESSAGE)
        return self


def storable_text(text: str) -> bool:
    """Whether PostgreSQL can store the text: no NUL and no unpaired surrogate (RFC 3629 §3)."""
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _storable(value: Any) -> bool:
    match value:
        case str():
            return storable_text(value)
        case SecretStr():
            return storable_text(value.get_secret_value())
        case Mapping():
            return all(_storable(key) and _storable(item) for key, item in value.items())
        case list() | tuple() | set() | frozenset():
            return all(isinstance(item, BaseModel) or _storable(item) for item in value)
    return True
