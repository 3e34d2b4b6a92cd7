"""``manage.py restate``: its subcommands against real servers, and what they say to people and to programs."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import shlex
import signal
import sys
import textwrap
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from restate_django import send
from restate_django.client import IngressClient
from restate_django.exceptions import Unavailable
from restate_django.management.commands.restate import Command
from restate_django.management.subcommands import SUBCOMMANDS
from restate_django.models import Invocation
from restate_django.testing import HandlerServer
from restate_django.testing.binary import NoServerError, find_binary
from restate_django.testing.process import ChildProcess
from tests.require import require
from tests.wait import wait_for


def command(*args: str) -> tuple[str, str]:
    """Run ``manage.py restate`` and return what it wrote to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    call_command("restate", *args, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def documents(*args: str) -> list[dict]:
    """Run it with ``--json`` and return the documents of its lines."""
    return [json.loads(line) for line in command(*args, "--json")[0].splitlines()]


@pytest.mark.django_db
def test_show_knows_a_row_by_its_id_and_by_restates():
    row = send("Greeter", "greet", {"name": "Mary"})
    (document,) = documents("show", str(row.pk))
    assert document["id"] == str(row.pk)
    assert document["payload"] == {"name": "Mary"}
    assert document["status"] == "unsent"
    assert "Greeter/greet" in command("show", str(row.pk))[0]
    with pytest.raises(CommandError, match="There is no invocation inv_1abc"):
        command("show", "inv_1abc")


@pytest.mark.django_db
def test_the_keys_of_a_rows_document_stay():
    """Somebody's script reads them: add to them, and take none away."""
    row = send("Greeter", "greet", {"name": "Mary"})
    keys = {
        "accepted_at", "attempts", "cancel_requested_at", "connection", "created_at", "delivery_error", "failure_code",
        "failure_message", "finished_at", "handler", "id", "idempotency_key", "invocation_id", "key", "last_failure",
        "limit_key", "polled_at", "related_id", "requested_by", "restarted_from", "retry_count", "run_at", "scope",
        "service", "started_at", "status", "target", "verb",
    }  # fmt: skip
    assert set(documents("list")[0]) == keys
    bodies = {"failure_metadata", "has_output", "headers", "output", "output_size", "payload"}
    assert set(documents("show", str(row.pk))[0]) == keys | bodies
    (told,) = documents("cancel", str(row.pk))
    assert set(told) == {"id", "target", "status", "result", "reason", "restarted_from"}


@pytest.mark.django_db
def test_list_shows_the_newest_of_several_statuses():
    rows = [send("Greeter", "greet", {"number": number}) for number in range(3)]
    rows[1].status = "failed"
    rows[1].save(update_fields=["status"])
    found = documents("list", "--status", "failed", "--status", "unsent", "--service", "Greeter")
    assert [each["id"] for each in found] == [str(row.pk) for row in reversed(rows)]
    assert [each["id"] for each in documents("list", "--limit", "1")] == [str(rows[2].pk)]
    assert documents("list", "--since", "1h", "--until", "1m") == []


# ---------------------------------------------------------------- against a real server


def code_of(*args: str) -> int:
    """Run it and return its exit code."""
    try:
        command(*args)
    except CommandError as error:
        return error.returncode
    return 0


@pytest.mark.django_db(transaction=True)
def test_send_call_attach_and_show(restate, tmp_path):
    (sent,) = documents("send", "Greeter", "greet", '{"name": "Mary"}', "--header", "X-Tenant=acme")
    assert sent["status"] == "accepted"
    assert sent["headers"] == {"X-Tenant": "acme"}
    assert documents("attach", sent["id"], "--timeout", "10") == [{"output": "Hello, Mary!"}]
    assert documents("attach", sent["invocation_id"]) == [{"output": "Hello, Mary!"}]
    (shown,) = documents("show", sent["id"], "--refresh")
    assert (shown["status"], shown["output"], shown["payload"]) == ("succeeded", "Hello, Mary!", {"name": "Mary"})
    payload = tmp_path / "payload.json"
    payload.write_text('{"name": "Joe"}')
    assert command("call", "Greeter", "greet", f"@{payload}")[0] == "Hello, Joe!\n"
    assert documents("call", "NoInput", "ping") == [{"output": "pong"}]
    assert command("call", "Echo", "raw", "<a>", "--content-type", "text/plain")[0].strip() == "<a>"
    (later,) = documents("send", "Slow", "sleep", '{"seconds": 0}', "--delay", "1h", "--idempotency-key", "k-1")
    assert later["run_at"] is not None
    assert documents("send", "Slow", "sleep", '{"seconds": 0}', "--idempotency-key", "k-1")[0]["id"] == later["id"]
    assert (
        "(a row has this key already)"
        in command("send", "Slow", "sleep", '{"seconds": 0}', "--idempotency-key", "k-1")[0]
    )
    Invocation.objects.get(pk=later["id"]).cancel()


@pytest.mark.django_db(transaction=True)
def test_what_goes_wrong_has_an_exit_code_and_a_document(restate, capsys):
    failing = ("call", "Fail", "terminal", '{"code": 418, "message": "a teapot"}')
    assert code_of(*failing) == 3
    out = io.StringIO()
    with pytest.raises(CommandError, match="a teapot"):
        call_command("restate", *failing, "--json", stdout=out)
    error = json.loads(out.getvalue())["error"]
    assert (error["type"], error["code"], error["message"]) == ("InvocationFailed", 418, "[418] a teapot")
    slow = ("call", "Slow", "sleep", '{"seconds": 60}', "--timeout", "0.3")
    with pytest.raises(CommandError, match=r"\(invocation [0-9a-f-]{36}\)") as timeout:
        command(*slow)
    assert timeout.value.returncode == 4
    Invocation.objects.get(service="Slow").kill()
    assert code_of("send", "Greeter", "greet", "Mary") == 1
    with pytest.raises(CommandError, match=r"The payload is no JSON.*within double quotes"):
        command("send", "Greeter", "greet", "Mary")
    with pytest.raises(CommandError, match="RESTATE has no connection 'nowhere'"):
        command("send", "Greeter", "greet", "--connection", "nowhere")
    with pytest.raises(CommandError, match="DATABASES has no database 'nowhere'"):
        command("list", "--database", "nowhere")
    assert code_of("send", "NoInput", "ping", "{}") == 1
    with pytest.raises(CommandError, match=r"Error: .*invalid choice"):
        command("list", "--status", "asleep")


@pytest.mark.django_db(transaction=True)
def test_operations_on_rows_that_are_named(restate):
    first, second = (send("Slow", "sleep", {"seconds": 600}) for _ in range(2))
    documents("refresh", str(first.pk), first.invocation_id)
    (cancelled,) = documents("cancel", str(first.pk))
    assert (cancelled["result"], cancelled["target"]) == ("done", "Slow/sleep")
    assert cancelled["reason"] == "Asked for its cancellation."
    assert command("kill", str(second.pk))[0].splitlines() == [f"{second.pk} Slow/sleep: Killed it.", "1 killed."]
    second.refresh_from_db()
    assert second.status == "killed"
    assert code_of("resend", str(second.pk)) == 5
    assert code_of("pause", str(second.pk)) == 5
    (again,) = documents("restart", str(second.pk))
    assert again["restarted_from"] == str(second.pk)
    assert documents("purge", str(second.pk))[0]["result"] == "done"
    documents("kill", again["id"])
    assert documents("purge-journal", again["id"])[0]["result"] == "done"


@pytest.mark.django_db(transaction=True)
def test_operations_on_what_a_filter_finds_are_asked_about(restate, monkeypatch):
    rows = [send("Slow", "sleep", {"seconds": 0}, delay=dt.timedelta(hours=1)) for _ in range(5)]
    other = send("Greeter", "greet", {"name": "Mary"}, delay=dt.timedelta(hours=1))
    assert "6 asked about." in command("refresh", "--since", "1h")[0]
    with pytest.raises(CommandError, match=r"cancel 5 invocations \(service Slow\)\? Nobody can be asked here"):
        command("cancel", "--service", "Slow")
    with pytest.raises(CommandError, match="Say what to cancel"):
        command("cancel")
    with pytest.raises(CommandError, match="Say what to cancel"):
        command("cancel", str(rows[0].pk), "--service", "Slow")
    with pytest.raises(CommandError, match="--handler alone"):
        command("cancel", "--handler", "sleep", "--yes")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    with pytest.raises(CommandError, match="Nothing was done"):
        command("cancel", "--service", "Slow")
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    monkeypatch.setattr("restate_django.operations.BATCH", 2)
    out, err = command("cancel", "--service", "Slow")
    assert out.splitlines()[-1] == "5 cancelled or asked to."
    assert "[y/N]" in err
    assert {row.status for row in Invocation.objects.filter(service="Slow")} == {"cancelled"}
    assert command("cancel", "--service", "Slow", "--yes")[0] == "No invocation is like that.\n"
    done = documents("kill", "--service", "Greeter", "--yes")
    assert [each["id"] for each in done] == [str(other.pk)]


@pytest.mark.django_db
def test_nothing_is_like_that_in_an_empty_table():
    assert command("cancel", "--service", "Slow")[0] == "No invocation is like that.\n"
    assert command("list")[0] == "No invocation is like that.\n"
    assert documents("list") == documents("cancel", "--service", "Slow") == []


class Terminal(io.StringIO):
    """A stdin or stderr that a person sits at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.django_db
def test_the_bar_is_for_terminals_alone_and_nothing_forges_a_line():
    for _ in range(3):
        send("Greeter", "greet", {"name": "\x1b[31mred"}, headers={"X-A": "b"})
    err = Terminal()
    call_command("restate", "cancel", "--service", "Greeter", "--yes", stdout=io.StringIO(), stderr=err)
    assert "3 of 3 cancelled" in err.getvalue()
    err = Terminal()
    call_command("restate", "cancel", "--service", "Greeter", "--yes", "-v", "0", stdout=io.StringIO(), stderr=err)
    assert err.getvalue() == ""
    row = Invocation.objects.first()
    assert "\x1b" not in command("show", str(row.pk))[0]
    assert "\x1b" not in command("show", str(row.pk), "--json")[0]


@pytest.mark.django_db(transaction=True)
def test_services_and_sql(restate):
    found = {each["name"]: each for each in documents("services")}
    assert found["Signup"]["kind"] == "Workflow"
    assert [each["name"] for each in found["Signup"]["handlers"]] == ["run", "status"]
    assert documents("services", "Greeter") == [found["Greeter"]]
    assert "Greeter" in command("services")[0]
    assert code_of("services", "Nope") == 1
    rows = documents("sql", "SELECT name, ty FROM sys_service WHERE name = 'Greeter'")
    assert rows == [{"name": "Greeter", "ty": "service"}]
    out, err = command("sql", "SELECT name, ty FROM sys_service WHERE name = 'Greeter'")
    assert out.splitlines() == ["name     ty", "Greeter  service"]
    assert "1 row." in err
    with pytest.raises(CommandError, match="SQL error"):
        command("sql", "SELEC")


@pytest.mark.django_db(transaction=True)
def test_deployments(make_restate, settings, tmp_path):
    running = make_restate(handlers=False)
    settings.RESTATE = {"default": {"INGRESS_URL": running.ingress_url, "ADMIN_URL": running.admin_url}}
    assert documents("deployments", "list") == []
    secret = tmp_path / "token.txt"
    secret.write_text("very-secret\n")
    with HandlerServer("tests.handlers:app", cwd=Path(__file__).parent.parent) as handlers:
        (plan,) = documents("deployments", "register", handlers.url, "--dry-run")
        assert (plan["registered"], plan["id"]) == (False, None)
        assert {change["service"] for change in plan["changes"] if change["is_new"]} >= {"Greeter", "Signup"}
        assert documents("deployments", "list") == []
        header = ("--header", f"X-Token=@{secret}")
        assert "Registered as dp_" in command("deployments", "register", handlers.url, *header)[0]
        (listed,) = documents("deployments", "list")
        assert (listed["services"]["Greeter"], listed["header_names"]) == (1, ["x-token"])
        (again,) = documents("deployments", "register", handlers.url)
        assert (again["registered"], again["id"]) == (False, listed["id"])
        assert documents("deployments", "register", handlers.url, "--force", "--yes")[0]["registered"]
        with pytest.raises(CommandError, match="Nobody can be asked here"):
            command("deployments", "remove", listed["id"], "--force")
        with pytest.raises(CommandError, match="by force alone"):
            command("deployments", "remove", listed["id"], "--yes")
        (removed,) = documents("deployments", "remove", listed["id"], "--force", "--yes")
        assert "Greeter" in removed["lost"]
        assert documents("deployments", "list") == []
        with pytest.raises(CommandError, match="knows no such deployment"):
            command("deployments", "remove", listed["id"], "--force", "--yes")


def test_up_runs_until_it_is_told_to_end(tmp_path):
    try:
        find_binary()
    except NoServerError as error:
        require(condition=False, reason=f"there is no Restate server: {error}")
    log = tmp_path / "up.log"
    argv = [sys.executable, "-m", "django", "restate", "up", "tests.handlers:app", "--json", "--verbosity", "0"]
    child = ChildProcess(
        argv,
        name="restate up",
        log_file=log,
        cwd=Path(__file__).parent.parent,
        env={"DJANGO_SETTINGS_MODULE": "tests.settings"},
    )
    child.start()
    try:
        wait_for(lambda: "}\n" in log.read_text() or not child.running, timeout=60, what="all of it to be up")
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("{")]
        up = json.loads(line)
        assert list(up["handlers"]) == ["tests.handlers:app"]
        with IngressClient(up["ingress_url"]) as ingress:
            assert ingress.call("Greeter", "greet", {"name": "Mary"}).value == "Hello, Mary!"
    finally:
        child.stop(by=signal.SIGINT)
    assert child.returncode == 0
    with pytest.raises(Unavailable), IngressClient(up["ingress_url"]) as ingress:
        ingress.health()


def test_up_says_why_it_does_not_start(monkeypatch):
    monkeypatch.setenv("RESTATE_SERVER", "no/such/program")
    with pytest.raises(CommandError, match="not a program on this machine"):
        command("up")


@pytest.mark.django_db(transaction=True)
def test_relay_and_prune_by_their_other_names(restate):
    assert "delivered: nothing" in command("relay", "--once")[0]
    assert "No rows would be deleted" in command("prune", "--dry-run")[0]


# ---------------------------------------------------------------- all of them


def test_each_subcommand_has_help_with_examples_and_is_documented(capsys):
    names = [kind.name for kind in SUBCOMMANDS]
    assert len(names) == len(set(names))
    for kind in SUBCOMMANDS:
        with pytest.raises(SystemExit) as end:
            Command().create_parser("manage.py", "restate").parse_args([kind.name, "--help"])
        assert end.value.code == 0
        said = capsys.readouterr().out
        if kind.name not in {"relay", "prune"}:
            assert f"manage.py restate {kind.name}" in said, kind.name
        assert "exit codes" in said


@pytest.mark.parametrize(
    "example",
    [line for kind in SUBCOMMANDS for line in textwrap.dedent(kind.examples).strip().splitlines()],
)
def test_each_example_can_be_parsed(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token.txt").write_text("secret")
    words = shlex.split(re.split(r" [|<] ", example)[0])
    assert words[:2] == ["manage.py", "restate"]
    options = Command().create_parser("manage.py", "restate").parse_args(words[2:])
    assert options.run_subcommand.name == words[2]


@pytest.mark.django_db(databases="__all__")  # Django's own checks ask SQLite what it can
def test_a_faulty_setting_is_found_first(settings):
    settings.RESTATE = {"default": {"INGRES_URL": "http://localhost:8080"}}
    with pytest.raises(CommandError, match="E001"):
        call_command("restate", "list", skip_checks=False, stdout=io.StringIO())
