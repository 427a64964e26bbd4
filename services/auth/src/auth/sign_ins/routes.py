"""A person's sign-ins, for the person and for administrators."""

import uuid
from functools import partial
from typing import Final

from auth.deps import PersonDep
from auth.schemas import SignInOut
from auth.sign_ins import queries
from common.web import ApiRouter
from common.web.pagination import Page, PageDep
from common.web.session import SessionDep

router: Final = ApiRouter(prefix="/sign-ins", tags=["sessions"])


@router.get("")
async def list_sign_ins(person: PersonDep, session: SessionDep, page: PageDep) -> Page[SignInOut]:
    """Your sign-ins of the last 90 days, refused ones included, newest first. Administrators see those of anybody."""
    fetch = partial(queries.sign_ins, session, person)
    return await page.load(fetch, by={"id": uuid.UUID}, item=SignInOut.model_validate)
