"""Who may call the routes."""

from typing import Annotated

from fastapi import Depends

from common.security.guards import authenticate
from common.security.tokens import Principal


CallerDep = Annotated[Principal, Depends(authenticate)]
