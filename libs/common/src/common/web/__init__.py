"""The HTTP edge that all services share: applications, routes, problems, request middleware."""

from common.runtime.health_endpoints import worker_app
from common.web.app import Api, by_port, create_api
from common.web.models import Model, StrictModel
from common.web.openapi import responses
from common.web.problems import Problem, ProblemResponse, problem
from common.web.route import ApiRequest, ApiRoute, ApiRouter

__all__ = [
    "Api",
    "ApiRequest",
    "ApiRoute",
    "ApiRouter",
    "Model",
    "Problem",
    "ProblemResponse",
    "StrictModel",
    "by_port",
    "create_api",
    "problem",
    "responses",
    "worker_app",
]
