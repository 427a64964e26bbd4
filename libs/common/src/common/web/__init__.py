"""The HTTP edge that all services share: applications, routes, problems, request middleware."""

from common.web.app import Api, by_port, create_api
from common.web.models import Model, StrictModel
from common.web.openapi import responses
from common.web.route import ApiRoute, ApiRouter

__all__ = [
    "Api",
    "ApiRoute",
    "ApiRouter",
    "Model",
    "StrictModel",
    "by_port",
    "create_api",
    "responses",
]
