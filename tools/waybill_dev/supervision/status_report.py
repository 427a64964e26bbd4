"""The content of `./dev status --json` (CONTRACT §1)."""

from waybill_dev.base.state import LOOPBACK
from waybill_dev.services.programs import ROLES
from waybill_dev.supervision.fleet import Fleet, Member
from waybill_dev.supervision.process import Process
from waybill_dev.supervision.stack import Stack


def report(stack: Stack) -> dict[str, object]:
    return {
        "gateway": stack.gateway.url() if stack.gateway is not None else None,
        "services": {service: _service(stack, stack.fleet, service) for service in ROLES} if stack.fleet else {},
        "broker": _broker(stack),
        "postgres": {"url": stack.postgres_url or None, **_server(stack, "postgres")},
        "mail": {
            "smtp": stack.mail.address if stack.mail is not None else None,
            "maildir": str(stack.mail.maildir) if stack.mail is not None else None,
            **_server(stack, "mail"),
        },
        "admin": stack.admin,
        "processes": [_process(process) for process in stack.processes()],
    }


def _service(stack: Stack, fleet: Fleet, service: str) -> dict[str, object]:
    apis = [member.program for member in fleet.members(service, "api")]
    first = apis[0] if apis else None
    internal = first.internal_port if first is not None else None
    return {
        "url": _url(first.port) if first is not None else None,
        "internal_url": _url(internal) if internal is not None else None,
        "database_url": fleet.addresses.database_url(stack.state, service),
        "processes": [_member(member) for member in fleet.members(service)],
    }


def _member(member: Member) -> dict[str, object]:
    return {**_process(member.process), "url": _url(member.program.port)}


def _process(process: Process) -> dict[str, object]:
    return {
        "name": process.program.name,
        "role": process.role,
        "pid": process.pid,
        "state": str(process.status),
        "restarts": process.restarts,
        "last_exit": process.last_exit,
    }


def _broker(stack: Stack) -> dict[str, object]:
    own = stack.rabbitmq
    urls = {
        "amqp_url": stack.amqp_url or None,
        "management_url": own.management_url if own is not None else None,
        "metrics_url": own.metrics_url if own is not None else None,
    }
    return {**urls, **_server(stack, "rabbitmq")}


def _server(stack: Stack, name: str) -> dict[str, object]:
    process = stack.servers.get(name)
    if process is None:
        return {"pid": None, "state": "external"}
    return {"pid": process.pid, "state": str(process.status), "restarts": process.restarts}


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"
