"""The Admin API on real servers: all of its operations, by the document that the server itself serves."""

from __future__ import annotations

import inspect
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import requests

from restate_django.client import AdminClient, KafkaCluster, OutputState, Rule, detect_path_style
from restate_django.client.results import HandlerInfo, InvocationRow, ServiceInfo, format_duration, parse_duration
from restate_django.exceptions import (
    AdminRefused,
    InvalidRequest,
    Misconfigured,
    NotFound,
    NotSupported,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from tests.client.wire import WireServer, answer, hang_up, response
from tests.wait import wait_for

UNKNOWN_ID = "inv_14Xgw3wzGLNU4HA3PNPlh6DHnqTAOEOzuX"

#: Where an argument can't have its parameter's name.
RENAMED = {("query", "query"): "sql", ("restart_as_new_invocation", "from"): "from_"}


def fresh() -> str:
    return uuid.uuid4().hex


def resolved(document, schema):
    """Follow a reference within the document."""
    while "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def body_properties(document, operation):
    """Return the names in an operation's body: all of them, over its variants; ``rules`` for a bare list."""
    body = operation.get("requestBody")
    if body is None:
        return set()
    schema = resolved(document, resolved(document, body)["content"]["application/json"]["schema"])
    if schema.get("type") == "array":
        return {"rules"}
    variants = [resolved(document, variant) for variant in schema.get("oneOf", [schema])]
    return {name for variant in variants for name in variant["properties"]}


def test_every_operation_has_a_method_and_every_parameter_an_argument(server):
    document = server.admin.openapi()
    operations = {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
        if "operationId" in operation
    }
    assert len(operations) > 20
    missing = [name for name in operations if not callable(getattr(AdminClient, name, None))]
    assert missing == []
    for name, operation in operations.items():
        wanted = {parameter["name"] for parameter in operation.get("parameters", ())}
        wanted |= body_properties(document, operation)
        arguments = set(inspect.signature(getattr(AdminClient, name)).parameters)
        lacking = {each for each in wanted if RENAMED.get((name, each), each) not in arguments}
        assert lacking == set(), name
        assert "timeout" in arguments, name


def test_version_and_health(server):
    version = server.admin.version()
    assert version.release >= (1, 6)
    assert version.ingress_endpoint
    assert detect_path_style(server.admin) == ("legacy" if server.is_legacy else "restate")
    assert server.admin.health() is None
    assert server.admin.cluster_health()["cluster_name"]


@pytest.mark.parametrize(
    ("version", "style"),
    [
        ("1.6.2", "legacy"),
        ("0.9.0", "legacy"),
        ("1.7.0-rc.1", "restate"),
        ("1.7.12", "restate"),
        ("2.0.0", "restate"),
        ("main", "restate"),
    ],
)
def test_the_path_style_by_version(version, style):
    body = f'{{"version":"{version}"}}'.encode()
    with WireServer(answer(response(200, body))) as server, AdminClient(server.url) as admin:
        assert detect_path_style(admin) == style


def test_services_and_handlers(server):
    services = {service.name: service for service in server.admin.list_services()}
    assert {"Wire", "Box", "Flow"} <= set(services)
    assert [services[name].ty for name in ("Wire", "Box", "Flow")] == ["Service", "VirtualObject", "Workflow"]
    flow = server.admin.get_service("Flow")
    assert flow.idempotency_retention == flow.workflow_completion_retention == timedelta(days=1)
    assert flow.is_workflow_run("run")
    assert not flow.is_workflow_run("go")
    assert not services["Box"].is_workflow_run("put")
    assert {handler.name: handler.ty for handler in flow.handlers} == {"run": "Workflow", "go": "Shared"}
    nothing = server.admin.get_service_handler("Wire", "nothing")
    assert nothing.takes_no_input
    assert not server.admin.get_service_handler("Wire", "greet").takes_no_input
    assert "nothing" in {handler.name for handler in server.admin.list_service_handlers("Wire")}
    assert server.admin.get_service_openapi("Wire")["openapi"].startswith("3.")
    for ask in (server.admin.get_service, server.admin.get_service_openapi, server.admin.list_service_handlers):
        with pytest.raises(NotFound) as caught:
            ask("Nope")
        assert isinstance(caught.value, LookupError)
        assert caught.value.status == 404
        assert "Nope" in str(caught.value)


def test_a_service_is_modified(server):
    try:
        changed = server.admin.modify_service(
            "Fails", public=False, idempotency_retention=timedelta(hours=2, seconds=1)
        )
        assert changed.idempotency_retention == timedelta(hours=2, seconds=1)
        assert not server.admin.get_service("Fails").public
        # A service that is not public is refused before anything runs.
        with pytest.raises(Refused, match="not public") as caught:
            server.ingress.send("Fails", "fail", {"code": 500, "message": ""})
        assert not caught.value.may_have_run
    finally:
        server.admin.modify_service("Fails", public=True, idempotency_retention="1d")
    assert server.admin.get_service("Fails").idempotency_retention == timedelta(days=1)
    assert server.admin.modify_service("Flow", workflow_completion_retention=timedelta(days=1)).ty == "Workflow"


def test_an_objects_state_is_replaced(server):
    key = fresh()
    server.ingress.call("Box", "put", 1, key=key)
    assert server.admin.modify_service_state("Box", key, {"value": b'"set"'}).status == 202
    wait_for(
        lambda: (
            server.admin.query(f"SELECT value_utf8 FROM state WHERE service_name = 'Box' AND service_key = '{key}'")
            == [{"value_utf8": '"set"'}]
        ),
        what="the new state",
    )
    assert server.ingress.call("Box", "put", 2, key=key).value["before"] == "set"


def test_deployments(server):
    deployments = server.admin.list_deployments()
    ours = next(each for each in deployments if "Wire" in each.services)
    assert ours.uri
    assert ours.created_at < datetime.now(UTC)
    assert ours.sdk_version.startswith("restate-sdk-python/")
    assert server.admin.get_deployment(ours.id).uri == ours.uri
    again = server.admin.create_deployment(ours.uri, force=False)
    assert (again.id, again.uri) == (ours.id, ours.uri)
    dry = server.admin.create_deployment(ours.uri, force=True, dry_run=True)
    assert "Wire" in dry.services
    assert server.admin.update_deployment(ours.id, uri=ours.uri, dry_run=True).id == ours.id
    with pytest.raises(NotFound):
        server.admin.get_deployment("dp_13stImv72zfl5MBYmh7FjxX")
    with pytest.raises(AdminRefused) as caught:
        server.admin.create_deployment("http://127.0.0.1:1")
    assert caught.value.restate_code == "META0003"
    assert not caught.value.may_have_run
    with pytest.raises(InvalidRequest, match="one of the two"):
        server.admin.create_deployment("http://127.0.0.1:1", arn="arn:aws:lambda")
    with pytest.raises((AdminRefused, NotSupported, Unavailable, NotFound)):
        server.admin.delete_deployment("dp_13stImv72zfl5MBYmh7FjxX", force=True)


# ---------------------------------------------------------------- invocations


def started(server, seconds=600):
    receipt = server.ingress.send("Wire", "nap", seconds, idempotency_key=fresh())
    wait_for(lambda: status_of(server, receipt) in {"running", "suspended"}, what="the start")
    return receipt.invocation_id


def status_of(server, receipt):
    rows = server.admin.sys_invocations([receipt.invocation_id])
    return rows[0].status if rows else None


def completed(server):
    receipt = server.ingress.send("Wire", "greet", "x", idempotency_key=fresh())
    server.ingress.attach(receipt.invocation_id)
    wait_for(lambda: status_of(server, receipt) == "completed", what="its row")
    return receipt.invocation_id


def test_cancel_tells_done_from_appended(server):
    running = started(server)
    appended = server.admin.cancel_invocation(running)
    assert (appended.status, appended.done) == (202, False)
    assert server.ingress.attach(running).failure.code == 409
    delayed = server.ingress.send("Wire", "greet", "x", delay=timedelta(hours=1)).invocation_id
    done = server.admin.cancel_invocation(delayed)
    assert (done.status, done.done) == (200, True)
    assert server.ingress.output(delayed).state is OutputState.UNKNOWN
    for act in (server.admin.cancel_invocation, server.admin.kill_invocation):
        with pytest.raises(AdminRefused) as caught:
            act(running)
        assert caught.value.status == 409
        assert "completed" in caught.value.message


def test_kill_purge_and_restart(server):
    killed = started(server)
    assert server.admin.kill_invocation(killed).done
    assert server.ingress.attach(killed).failure.message.lower() == "killed"
    finished = completed(server)
    new = server.admin.restart_as_new_invocation(finished)
    assert new != finished
    assert server.ingress.attach(new).value == "Hello x!"
    row = wait_for(lambda: server.admin.sys_invocations([new]), what="its row")[0]
    assert row.restarted_from == finished
    assert row.idempotency_key is None
    assert server.admin.restart_as_new_invocation(finished, from_=0).startswith("inv_")
    assert server.admin.purge_journal(finished).done
    with pytest.raises(AdminRefused) as caught:
        server.admin.restart_as_new_invocation(finished)
    assert caught.value.status == 410
    assert server.ingress.output(finished).state is OutputState.READY
    assert server.admin.purge_invocation(finished).done
    wait_for(lambda: server.ingress.output(finished).state is OutputState.UNKNOWN, what="the purge")
    with pytest.raises(AdminRefused) as caught:
        server.admin.purge_invocation(started(server, 2))
    assert caught.value.status == 409


def test_pause_and_resume(server):
    napping = started(server, 0.5)
    server.admin.pause_invocation(napping)
    # It naps: suspended already, or paused; either way resume brings it to its end.
    wait_for(
        lambda: server.admin.sys_invocations([napping])[0].status in {"paused", "suspended", "completed"},
        what="the pause",
    )
    if server.admin.sys_invocations([napping])[0].status == "paused":
        assert server.admin.resume_invocation(napping, deployment="latest").done
    assert server.ingress.attach(napping).value == "rested"
    with pytest.raises(AdminRefused) as caught:
        server.admin.resume_invocation(napping)
    assert caught.value.status == 409
    delayed = server.ingress.send("Wire", "greet", "x", delay=timedelta(hours=1)).invocation_id
    with pytest.raises(AdminRefused) as caught:
        server.admin.resume_invocation(delayed, deployment="keep")
    assert caught.value.status == 425
    assert server.admin.delete_invocation(delayed, mode="Cancel").status == 202
    wait_for(lambda: server.ingress.output(delayed).state is OutputState.UNKNOWN, what="the cancel")


def test_an_invocation_that_never_was(server):
    admin = server.admin
    for act in (
        admin.cancel_invocation,
        admin.kill_invocation,
        admin.pause_invocation,
        admin.resume_invocation,
        admin.purge_invocation,
        admin.purge_journal,
        admin.restart_as_new_invocation,
        admin.describe_invocation,
    ):
        with pytest.raises(NotFound):
            act(UNKNOWN_ID)
        with pytest.raises(InvalidRequest, match="invocation id"):
            act("inv_1' OR '1'='1")
    with pytest.raises(AdminRefused):
        admin.cancel_invocation("inv_abc")


# ---------------------------------------------------------------- SQL


def test_rows_of_sys_invocation(server):
    done = completed(server)
    delayed = server.ingress.send("Box", "put", 1, key="sql key", delay=timedelta(hours=1)).invocation_id
    failed = server.ingress.call("Fails", "fail", {"code": 418, "message": "tea\n[x]"}, idempotency_key=fresh())
    rows = {
        row.id: row for row in server.admin.sys_invocations([done, delayed, failed.invocation_id, UNKNOWN_ID, done])
    }
    assert set(rows) == {done, delayed, failed.invocation_id}
    row = rows[done]
    assert (row.target, row.status, row.completion_result, row.failure) == ("Wire/greet", "completed", "success", None)
    assert (row.target_service_name, row.target_handler_name, row.target_service_ty) == ("Wire", "greet", "service")
    assert row.created_at <= row.running_at <= row.completed_at <= datetime.now(UTC) + timedelta(minutes=1)
    assert row.idempotency_key
    assert rows[failed.invocation_id].failure == (418, "tea\n[x]")
    scheduled = rows[delayed]
    assert (scheduled.status, scheduled.target_service_key) == ("scheduled", "sql key")
    assert scheduled.scheduled_start_at > datetime.now(UTC)
    server.admin.cancel_invocation(delayed)
    assert server.admin.sys_invocations([]) == []
    for injected in ("inv_1'", "x", "inv_1) OR (1=1"):
        with pytest.raises(InvalidRequest):
            server.admin.sys_invocations([done, injected])


def test_a_handler_that_keeps_failing_shows_why(server):
    receipt = server.ingress.send("Wire", "stuck", "no luck today")
    row = wait_for(
        lambda: next((row for row in server.admin.sys_invocations([receipt.invocation_id]) if row.last_failure), None),
        what="a failed attempt",
    )
    assert row.status in {"backing-off", "running", "ready"}
    assert "no luck today" in row.last_failure
    assert row.retry_count >= 1
    server.admin.kill_invocation(receipt.invocation_id)


def test_an_invocation_is_described(server):
    receipt = server.ingress.send("Wire", "nap", 0.05, idempotency_key=fresh())
    assert server.ingress.attach(receipt.invocation_id).value == "rested"
    found = server.admin.describe_invocation(receipt.invocation_id)
    assert found.row.id == receipt.invocation_id
    assert found.row.raw["target"] == "Wire/nap"
    kinds = [entry["entry_type"] for entry in found.journal]
    assert kinds[0] == "Command: Input"
    assert "Command: Sleep" in kinds
    assert [entry["index"] for entry in found.journal] == list(range(len(found.journal)))
    assert isinstance(found.events, list)


def test_a_query_that_is_wrong_is_refused(server):
    assert server.admin.query("SELECT 1 AS one, 'é' AS e") == [{"one": 1, "e": "é"}]
    for sql in ("selec", "SELECT nope FROM sys_invocation", ""):
        with pytest.raises((AdminRefused, InvalidRequest)) as caught:
            server.admin.query(sql)
        assert not caught.value.may_have_run


def test_a_query_does_not_stall(server):
    """On a kept-alive connection each would take 40 ms more."""
    server.admin.query("SELECT 1")
    start = datetime.now(UTC)
    for _ in range(20):
        server.admin.query("SELECT 1")
    assert datetime.now(UTC) - start < timedelta(seconds=0.04 * 20)


# ---------------------------------------------------------------- Kafka and limits


def test_subscriptions_and_kafka_clusters(server):
    admin, name = server.admin, f"kafka-{fresh()[:8]}"
    assert admin.list_subscriptions(sink="service://Wire/greet", source=f"kafka://{name}/t") == []
    for ask in (admin.get_subscription, admin.delete_subscription):
        with pytest.raises((NotFound, AdminRefused)):
            ask("sub_15VqmTOnXH3Vv2pl5HOG7Ua")
    with pytest.raises(AdminRefused):
        admin.create_subscription(f"kafka://{name}/topic", "service://Wire/greet")
    if server.is_legacy:
        for act in (admin.list_kafka_clusters, lambda: admin.get_kafka_cluster("a"), lambda: admin.upsert_rules([])):
            with pytest.raises(NotSupported, match="older"):
                act()
        return
    made = admin.create_kafka_cluster(name, {"bootstrap.servers": "127.0.0.1:1"})
    try:
        assert made.name == name
        assert made.created_at is not None
        assert name in {cluster.name for cluster in admin.list_kafka_clusters()}
        assert admin.update_kafka_cluster(name, {"bootstrap.servers": "127.0.0.1:2"}).name == name
        subscription = admin.create_subscription(
            f"kafka://{name}/topic", "service://Wire/greet", options={"group.id": "g"}
        )
        assert admin.get_subscription(subscription.id).sink == "service://Wire/greet"
        assert subscription.id in {each.id for each in admin.list_subscriptions()}
        cluster = admin.get_kafka_cluster(name, include_subscriptions=True)
        assert isinstance(cluster, KafkaCluster)
        assert [each.id for each in cluster.subscriptions] == [subscription.id]
        admin.delete_subscription(subscription.id)
    finally:
        admin.delete_kafka_cluster(name, force=True)
    with pytest.raises(NotFound):
        admin.get_kafka_cluster(name)


def test_limits_and_queues(scoped):
    admin, scope = scoped.admin, f"s{fresh()[:8]}"
    rule = Rule(f"{scope}/*", concurrency=3, description="for the test")
    made = admin.upsert_rules([rule])[0]
    assert (made.pattern, made.concurrency, made.description) == (rule.pattern, 3, "for the test")
    assert made.version is not None
    raised = admin.upsert_rules([Rule(rule.pattern, concurrency=5, version=made.version)])[0]
    assert raised.version > made.version
    with pytest.raises(AdminRefused) as caught:
        admin.upsert_rules([{"pattern": rule.pattern, "limits": {}, "precondition": {"type": "does_not_exist"}}])
    assert caught.value.status in {409, 422}
    with pytest.raises(AdminRefused):
        admin.bulk_delete_rules([Rule(rule.pattern, version=made.version)])
    assert admin.bulk_delete_rules([raised]) == [rule.pattern]
    assert admin.bulk_delete_rules([rule.pattern]) in ([], [rule.pattern])
    assert scoped.ingress.call("Wire", "greet", "x", scope=scope).value == "Hello x!"
    queues = admin.query("SELECT id FROM sys_vqueues LIMIT 1")
    if queues:
        assert admin.pause_vqueue(queues[0]["id"]).status == 202
        assert admin.resume_vqueue(queues[0]["id"]).status == 202
    with pytest.raises((AdminRefused, NotFound)):
        admin.pause_vqueue("nope")


# ---------------------------------------------------------------- without a server that helps


def test_a_refusal_and_a_break_tell_whether_anything_was_changed():
    with WireServer(hang_up) as server, AdminClient(server.url) as admin:
        with pytest.raises(OutcomeUnknown) as changed:
            admin.cancel_invocation(UNKNOWN_ID)
        assert changed.value.may_have_run
        with pytest.raises(Unavailable):
            admin.get_service("S")
        with pytest.raises(Unavailable):
            admin.query("SELECT 1")
    with WireServer(answer(response(503, b'{"message":"no leader"}'))) as server, AdminClient(server.url) as admin:
        with pytest.raises(Unavailable):
            admin.version()
        with pytest.raises(OutcomeUnknown):
            admin.kill_invocation(UNKNOWN_ID)
    with WireServer(answer(response(401, b""))) as server, AdminClient(server.url) as admin:
        for act in (admin.version, lambda: admin.purge_invocation(UNKNOWN_ID)):
            with pytest.raises(Misconfigured, match="token"):
                act()


def test_the_query_asks_for_json_on_a_connection_of_its_own():
    rows = response(200, b'{"rows":[]}', content_type="application/json", connection="close")

    def one(peer):
        peer.read()
        peer.write(rows)

    with WireServer(one) as server, AdminClient(server.url, "s3cret") as admin:
        assert admin.query("SELECT 'é'") == []
        assert admin.query("SELECT 1") == []
        request = server.requests[0]
    assert b"\r\naccept: application/json\r\n" in request.lower()
    assert b"\r\nconnection: close\r\n" in request.lower()
    assert b"\r\nauthorization: bearer s3cret\r\n" in request.lower()
    assert request.endswith('{"query": "SELECT \'é\'"}'.encode())


@pytest.mark.parametrize(
    "act",
    [
        lambda admin: admin.modify_service_state("Box", "k", {"value": 5}),
        lambda admin: admin.modify_service_state("Box", "k", {"value": "5"}),
        lambda admin: admin.modify_service_state("Box", "k", [b"5"]),
        lambda admin: admin.modify_service_state("Box", "k", {"value": b"5"}, version=5),
        lambda admin: admin.modify_service("Box", idempotency_retention=5),
        lambda admin: admin.create_kafka_cluster("x", None),
        lambda admin: admin.create_kafka_cluster(5, {}),
        lambda admin: admin.update_kafka_cluster("x", "y"),
        lambda admin: admin.upsert_rules([5]),
        lambda admin: admin.bulk_delete_rules([5]),
        lambda admin: admin.create_deployment(5),
        lambda admin: admin.create_deployment("http://x", additional_headers=["a"]),
        lambda admin: admin.create_deployment("http://x", metadata={"a": object()}),
        lambda admin: admin.create_deployment("http://x/\ud800"),
        lambda admin: admin.update_deployment("dp_1", arn=5),
        lambda admin: admin.create_subscription("kafka://c/t", None, options={1: 2}),
        lambda admin: admin.list_subscriptions(sink="\ud800"),
        lambda admin: admin.resume_invocation(UNKNOWN_ID, deployment="\ud800"),
        lambda admin: admin.restart_as_new_invocation(UNKNOWN_ID, from_=-1),
        lambda admin: admin.restart_as_new_invocation(UNKNOWN_ID, from_="x"),
        lambda admin: admin.restart_as_new_invocation(UNKNOWN_ID, from_=True),
        lambda admin: admin.query(None),
        lambda admin: admin.query("SELECT '\ud800'"),
    ],
)
def test_an_argument_that_could_never_be_served_is_refused_before_it_is_sent(act):
    with WireServer(hang_up) as server, AdminClient(server.url) as admin:
        with pytest.raises(InvalidRequest):
            act(admin)
        assert server.requests == []


def test_what_the_server_can_not_read_is_refused_and_no_wrong_setting(server):
    with pytest.raises(AdminRefused, match="Failed to deserialize") as caught:
        server.admin.create_deployment("http://localhost:1", metadata={"a": 5})
    assert not caught.value.may_have_run


@pytest.mark.parametrize("name", ["", ".", "..", None, 5, "\ud800"])
def test_a_name_that_is_none_is_refused(name):
    with AdminClient("http://127.0.0.1:1") as admin, pytest.raises(InvalidRequest, match="service"):
        admin.get_service(name)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1d", timedelta(days=1)),
        ("1h 30m", timedelta(hours=1.5)),
        ("1d, 2h", timedelta(days=1, hours=2)),
        ("250ms", timedelta(milliseconds=250)),
        ("5 hours", timedelta(hours=5)),
        ("0s", timedelta(0)),
        ("10m", timedelta(minutes=10)),
        ("PT86400S", timedelta(days=1)),
        ("P1DT2H3M4.5S", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("PT0S", timedelta(0)),
        ("9999999y", timedelta.max),
        ("soon", None),
        ("5 parsecs", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_durations(text, duration):
    assert parse_duration(text) == duration


def test_durations_go_back():
    for duration in (timedelta(0), timedelta(days=1), timedelta(seconds=1.5), timedelta(microseconds=1)):
        assert parse_duration(format_duration(duration)) == duration
    assert format_duration("5 hours") == "5 hours"


def test_a_handlers_retention_overrides_its_services():
    day, hour = timedelta(days=1), timedelta(hours=1)
    handlers = (
        HandlerInfo("run", "Workflow", workflow_completion_retention=hour),
        HandlerInfo("plain", "Shared"),
        HandlerInfo("own", "Shared", idempotency_retention=timedelta(0)),
    )
    service = ServiceInfo(
        "W", "Workflow", idempotency_retention=day, workflow_completion_retention=2 * day, handlers=handlers
    )
    assert service.retention_of("run") == hour
    assert service.retention_of("plain") == day
    assert service.retention_of("own") == timedelta(0)
    assert service.retention_of("unknown") == day
    assert ServiceInfo("S").retention_of("x") is None


@pytest.mark.parametrize("failure", ["plain words", "", "[] x", "[x] y"])
def test_a_failure_without_a_code_keeps_its_words(failure):
    row = InvocationRow.from_json({"id": "inv_1", "completion_result": "failure", "completion_failure": failure})
    assert row.failure == (None, failure)
    assert row.created_at is None


def test_bare_requests_agrees(server):
    """What the client says of a server is what the server says to anybody."""
    told = requests.get(f"{server.admin_url}/version", timeout=5).json()
    assert server.admin.version().version == told["version"]


def test_why_an_invocation_was_paused(server):
    receipt = server.ingress.send("Wire", "stuck", "no luck today")
    wait_for(
        lambda: [row for row in server.admin.sys_invocations([receipt.invocation_id]) if row.last_failure],
        what="a failed attempt",
    )
    server.admin.pause_invocation(receipt.invocation_id)
    wait_for(lambda: status_of(server, receipt) == "paused", what="the pause")
    failures = wait_for(
        lambda: server.admin.pause_failures([receipt.invocation_id, UNKNOWN_ID]), what="the pause's event"
    )
    assert set(failures) == {receipt.invocation_id}
    assert "no luck today" in failures[receipt.invocation_id]
    server.admin.kill_invocation(receipt.invocation_id)
    assert server.admin.pause_failures([]) == {}
    with pytest.raises(InvalidRequest):
        server.admin.pause_failures(["inv_1'"])


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            '{"last_failure":{"error_code":500,"error_message":"no luck","error_stacktrace":"line 1"}}',
            "[500] no luck\nline 1",
        ),
        ('{"last_failure":{"error_code":570,"error_message":"m"}}', "[570] m"),
        ('{"last_failure":null}', None),
        ("[1]", None),
        ("{bad", None),
        (None, None),
    ],
)
def test_what_a_pauses_event_tells(event, told):
    row = {"id": "inv_1"} | ({} if event is None else {"event_json": event})
    with (
        WireServer(answer(response(200, json.dumps({"rows": [row]}).encode()))) as server,
        AdminClient(server.url) as admin,
    ):
        assert admin.pause_failures(["inv_1"]) == ({} if told is None else {"inv_1": told})


def test_an_answer_without_what_it_should_have_is_no_answer():
    with WireServer(answer(response(200, b"[]"))) as server, AdminClient(server.url) as admin:
        for act in (admin.version, lambda: admin.query("SELECT 1"), lambda: admin.get_service("S")):
            with pytest.raises(OutcomeUnknown) as read:
                act()
            assert not read.value.may_have_run
        for act in (
            lambda: admin.restart_as_new_invocation(UNKNOWN_ID),
            lambda: admin.create_deployment("http://127.0.0.1:1"),
        ):
            with pytest.raises(OutcomeUnknown) as changed:
                act()
            assert changed.value.may_have_run
    with WireServer(answer(response(200, b"{}"))) as server, AdminClient(server.url) as admin:
        with pytest.raises(OutcomeUnknown, match="new invocation"):
            admin.restart_as_new_invocation(UNKNOWN_ID)
        for act in (lambda: admin.upsert_rules([]), lambda: admin.bulk_delete_rules([{"pattern": "*"}])):
            with pytest.raises(OutcomeUnknown):
                act()


def test_the_servers_words_are_one_line_of_an_error_and_bounded():
    said = json.dumps({"message": "no\n2026-11-22 ERROR forged\x1b[31m " + "x" * 200_000, "restate_code": "META0003"})
    for status, kind in ((409, AdminRefused), (404, NotFound), (500, AdminRefused), (429, Unavailable)):
        refusal = response(status, said.encode(), content_type="application/json")
        with WireServer(answer(refusal)) as server, AdminClient(server.url) as admin:
            with pytest.raises(kind) as caught:
                admin.cancel_invocation(UNKNOWN_ID)
            assert str(caught.value).isprintable()
            assert r"no\n2026-11-22 ERROR forged\x1b[31m xxx" in caught.value.message
            assert len(caught.value.message) < 1100
