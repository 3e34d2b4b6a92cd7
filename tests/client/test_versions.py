"""Which server has which operation: the table that the README shows, held against real servers."""

from __future__ import annotations

import contextlib
import uuid
from datetime import timedelta

import pytest

from restate_django.client import OutputState, Target
from restate_django.exceptions import AdminRefused, NotSupported, Refused
from tests.told import tell
from tests.wait import wait_for

WORKS, MISSING = "works", "not offered"


def fresh():
    return uuid.uuid4().hex


def awakeable(server):
    server.ingress.resolve_awakeable("prom_1NMyOAvDK2CcBjUH4Rmb7eGBp0DNNDnmsAAAAAQ", 1)
    server.ingress.reject_awakeable("prom_1NMyOAvDK2CcBjUH4Rmb7eGBp0DNNDnmsAAAAAQ", "no")
    return True


def paused_and_resumed(server):
    invocation_id = napping(server)

    def is_paused():
        with contextlib.suppress(AdminRefused):
            server.admin.pause_invocation(invocation_id)
        return server.admin.sys_invocations([invocation_id])[0].status == "paused"

    wait_for(is_paused, what="the pause")
    return server.admin.resume_invocation(invocation_id)


def kept(server, key):
    return server.ingress.call("Wire", "greet", "x", idempotency_key=key).invocation_id


#: Operation: what does it, and whether 1.6 has it. 1.7 has them all.
OPERATIONS = {
    "call": (lambda server, key: server.ingress.call("Wire", "greet", "x"), True),
    "send": (lambda server, key: server.ingress.send("Wire", "greet", "x"), True),
    "send with a key, a delay, headers": (
        lambda server, key: server.ingress.send(
            "Wire", "greet", "x", idempotency_key=key, headers={"a": "b"}, delay=timedelta(milliseconds=1)
        ),
        True,
    ),
    "attach by id": (lambda server, key: server.ingress.attach(kept(server, key)), True),
    "attach by target": (
        lambda server, key: kept(server, key) and server.ingress.attach(target=Target.idempotent("Wire", "greet", key)),
        True,
    ),
    "output by id": (lambda server, key: server.ingress.output(kept(server, key)), True),
    "output by target": (
        lambda server, key: kept(server, key) and server.ingress.output(target=Target.idempotent("Wire", "greet", key)),
        True,
    ),
    "output of a call without a key": (
        lambda server, key: server.ingress.output(server.ingress.call("Wire", "greet", "x").invocation_id),
        True,
    ),
    "status": (lambda server, key: server.ingress.status(kept(server, key)), False),
    "lookup": (lambda server, key: server.ingress.lookup(Target.idempotent("Wire", "greet", key)), False),
    "submit_or_attach": (lambda server, key: server.ingress.submit_or_attach("Flow", key, 1), True),
    "awakeables": (lambda server, key: awakeable(server), True),
    "health": (lambda server, key: server.ingress.health(), True),
    "scopes and limit keys": (
        lambda server, key: server.ingress.call("Wire", "greet", "x", scope="a", limit_key="b/c"),
        False,
    ),
    "a failure's metadata, when read": (
        lambda server, key: (
            server.ingress.output(
                server.ingress.call(
                    "Fails", "fail", {"code": 500, "message": "m", "metadata": {"a": "b"}}, idempotency_key=key
                ).invocation_id
            ).failure.metadata
        ),
        False,
    ),
    "admin: version": (lambda server, key: server.admin.version(), True),
    "admin: services": (lambda server, key: server.admin.get_service("Wire"), True),
    "admin: handlers": (lambda server, key: server.admin.list_service_handlers("Wire"), True),
    "admin: a service's OpenAPI document": (lambda server, key: server.admin.get_service_openapi("Wire"), True),
    "admin: change a service": (lambda server, key: server.admin.modify_service("Wire", public=True), True),
    "admin: change an object's state": (
        lambda server, key: server.admin.modify_service_state("Box", key, {"value": b"1"}),
        True,
    ),
    "admin: deployments": (lambda server, key: server.admin.list_deployments(), True),
    "admin: cancel": (lambda server, key: server.admin.cancel_invocation(napping(server)), True),
    "admin: kill": (lambda server, key: server.admin.kill_invocation(napping(server)), True),
    "admin: pause and resume": (lambda server, key: paused_and_resumed(server), True),
    "admin: restart as new": (lambda server, key: server.admin.restart_as_new_invocation(kept(server, key)), True),
    "admin: purge": (lambda server, key: server.admin.purge_invocation(kept(server, key)), True),
    "admin: purge a journal": (lambda server, key: server.admin.purge_journal(kept(server, key)), True),
    "admin: describe an invocation": (lambda server, key: server.admin.describe_invocation(napping(server)), True),
    "admin: SQL": (lambda server, key: server.admin.sys_invocations([kept(server, key)]), True),
    "admin: subscriptions": (lambda server, key: server.admin.list_subscriptions() or True, True),
    "admin: Kafka clusters": (lambda server, key: server.admin.list_kafka_clusters() or True, False),
    "admin: limits": (lambda server, key: server.admin.upsert_rules([{"pattern": key[:9]}]), False),
}


def napping(server):
    return server.ingress.send("Wire", "nap", 600).invocation_id


@pytest.mark.parametrize("name", ["legacy", "modern", "scoped"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_by_server(request, operation, name):
    server = request.getfixturevalue(name)
    act, in_legacy = OPERATIONS[operation]
    # Scopes are off unless a server is started with them.
    expected = name != "legacy" if operation != "scopes and limit keys" else name == "scoped"
    expected = in_legacy if name == "legacy" else expected
    try:
        found = act(server, fresh())
    except (NotSupported, Refused):
        works = False
    else:
        # An output that the server did not keep, and metadata that it lost, are answers, and not offered all the same.
        works = bool(found) and getattr(found, "state", None) is not OutputState.UNKNOWN
    label = f"{server} scopes" if name == "scoped" else str(server)
    tell("operations", operation, label, WORKS if works else MISSING)
    assert works == expected
