"""A counter-example as a page that a person can read."""

import re
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Final

from waybill_dev.model.runs import Mutant
from waybill_dev.model.spin import Result

_wrapped: Final = partial(fill, width=120)
_HEAD: Final = "| step | who | does |\n| ---: | --- | --- |"
_WHO: Final = re.compile(r"((?:Relay|Consumer) \d|The producer of \w|An operator|PostgreSQL) (.*)\.$")


def file_of(mutant: Mutant, folder: Path) -> Path:
    return folder / f"{mutant.world.lower().replace('_', '-')}.md"


def page(mutant: Mutant, result: Result) -> str:
    rows = "\n".join(_row(number, step) for number, step in enumerate(result.steps, start=1))
    return f"""# {mutant.title}

Written by `./dev model`. `A v2` is the event of version 2 of the aggregate A.

{_wrapped(mutant.is_different)}

{_HEAD}
{rows}

**Broken:** {result.broken}.

{_wrapped(mutant.answer)}
"""


def _row(number: int, step: str) -> str:
    who, does = parts.groups() if (parts := _WHO.match(step)) else ("", step.rstrip("."))
    return f"| {number} | {who[:1].upper()}{who[1:]} | {does} |"
