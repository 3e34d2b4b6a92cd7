"""The lines that would send the same again do send the same again."""

from __future__ import annotations

import datetime as dt
import shlex
import shutil
import subprocess

import pytest
from django.utils import timezone

import restate_django
from restate_django import NO_PAYLOAD, send
from restate_django.admin import bodies, repeat
from restate_django.models import Invocation
from tests.admin.pages import page_of
from tests.admin.rows import make_row
from tests.require import require


def lines_of(row, mask=lambda value: value):
    payload = bodies.read(row, mask).short_payload
    return repeat.curl_line(row, payload, "payload.json"), repeat.python_line(row, payload, "payload.json")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "arguments",
    [
        {"payload": {"name": 'M\'ary "$HOME" `id` \\ é\n', "n": [1, 2.5, None, True]}},
        {"payload": "@file"},
        {"payload": None},
        {"key": "a/b c'é", "service": "EchoObject", "handler": "describe", "idempotency_key": "it's-1"},
        {"payload": b"\x01plain", "content_type": "text/x-own", "handler": "raw", "headers": {"x-a": "it's"}},
        {"payload": NO_PAYLOAD, "service": "NoInput", "handler": "ping"},
    ],
    ids=repr,
)
def test_they_are_the_same_invocation(restate, arguments, tmp_path):
    require(shutil.which("curl"), "there is no curl on this machine")
    given = {"service": "Echo", "handler": "json", **arguments}
    row = send(
        given.pop("service"), given.pop("handler"), given.pop("payload", {}), delay=dt.timedelta(hours=1), **given
    )
    curl, python = lines_of(row)
    (tmp_path / "payload.json").write_bytes(bytes(row.payload_bytes or b""))
    shell = ["sh", "-c", curl + " -sS"]
    answer = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True)
    assert row.invocation_id in answer.stdout, (curl, answer)
    assert "PreviouslyAccepted" in answer.stdout
    # The line is ours, and it is what a reader would paste.
    again = eval(python, {"send": restate_django.send, "Path": lambda name: tmp_path / name, "datetime": dt})
    assert again == (row if "idempotency_key" in arguments else Invocation.objects.exclude(pk=row.pk).get())
    again.refresh_from_db()
    for name in ("service", "key", "handler", "content_type", "headers", "run_at"):
        assert getattr(again, name) == getattr(row, name)
    assert bytes(again.payload_bytes or b"") == bytes(row.payload_bytes or b"")


@pytest.mark.django_db
def test_a_delay_is_what_is_left_of_it(settings):
    settings.RESTATE = {"default": {"PATH_STYLE": "legacy", "HEADERS": {"x-api-key": "hunter2"}}}
    waits = make_row("scheduled", run_at=timezone.now() + dt.timedelta(hours=2))
    curl, python = lines_of(waits)
    assert 7100 < int(curl.split("delay=")[1].split("ms")[0]) / 1000 <= 7200
    assert "eta=datetime.datetime(" in python
    assert '-H "x-api-key: $RESTATE_X_API_KEY"' in curl
    assert "hunter2" not in curl + python
    assert "/send?" in curl
    over = make_row("running", run_at=timezone.now() - dt.timedelta(hours=2))
    curl, python = lines_of(over)
    assert "delay" not in curl
    assert "eta" not in python


@pytest.mark.django_db
def test_what_is_secret_stays_secret(operator, viewer, settings):
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": "https://restate.example",
            "ADMIN_URL": None,
            "TOKEN": "t0ken",
            "HEADERS": {"x-b": "hush"},
        }
    }
    row = make_row(payload_bytes=b'{"password": "hunter2"}', headers={"x-api-key": "hunter2"})
    page = operator.get(page_of(row)).content.decode()
    assert "curl -X POST https://restate.example/restate/send/Greeter/greet" in page
    assert "$RESTATE_TOKEN" in page
    for secret in ("t0ken", "hush", "hunter2"):
        assert secret not in page
    assert "curl -X POST" not in viewer.get(page_of(row)).content.decode()


@pytest.mark.django_db
def test_what_can_not_stand_in_a_line(settings):
    settings.RESTATE = {"default": {"PATH_STYLE": "legacy", "ADMIN_URL": None}}
    curl, python = lines_of(make_row(payload_bytes=b'"' + b"x" * 5000 + b'"'))
    assert shlex.split(curl)[-1] == "@payload.json"
    assert "http://localhost:8080/Greeter/greet/send" in curl
    assert "Path('payload.json').read_bytes(), content_type='application/json'" in python
    assert lines_of(make_row(scope="a"))[0] == ""  # the old paths have no scopes
    assert lines_of(make_row(connection="left"))[0] == ""
    for body in (b"\xff", b"a\x00b", b"@a"):
        assert shlex.split(lines_of(make_row(payload_bytes=body))[0])[-1] == "@payload.json"
