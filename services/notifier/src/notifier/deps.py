"""Who may call the routes."""

from typing import Annotated

from fastapi import Depends

from common.security.guards import require_scopes
from common.security.tokens import Principal

ReaderDep = Annotated[Principal, Depends(require_scopes("notifications:read"))]
WriterDep = Annotated[Principal, Depends(require_scopes("notifications:write"))]
