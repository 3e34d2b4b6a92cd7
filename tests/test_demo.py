"""The demo command as a user runs it: a process of its own, beside other programs on the usual ports."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
import requests

from restate_django.testing import RestateServer
from restate_django.testing.process import free_port
from tests.conftest import ROOT
from tests.require import require
from tests.wait import wait_for

pytestmark = pytest.mark.once

MANAGE = ROOT / "example_project" / "manage.py"
KINDS = {
    "service": "succeeded",
    "object": "succeeded",
    "workflow": "succeeded",
    "delayed": "succeeded",
    "idempotent repeat": "succeeded",
    "terminal failure": "failed",
    "paused": "paused",
    "cancelled while running": "cancelled",
    "cancelled before it started": "cancelled",
    "agent": "succeeded",
}
# What would lead the demo to other servers, or to the tests' own settings and databases.
OURS = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "CELERY_BROKER_URL", "RESTATE_INGRESS_URL", "RESTATE_ADMIN_URL")


@pytest.fixture(autouse=True)
def usual_ports_taken():
    """Another program on the usual ports: ours, unless somebody else's is there already."""
    with contextlib.ExitStack() as stack:
        for port in (8080, 9070, 9080, 8000):
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                taken.listen()
        yield


@pytest.fixture
def demo(tmp_path):
    """Start ``manage.py demo`` on a data folder of the test's own; gives the process and the file it writes to."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **environment):
            env = {name: value for name, value in os.environ.items() if name not in OURS}
            env |= {"SHOP_DATA": str(tmp_path / "data"), **environment}
            # A clone that was not installed runs as well.
            env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
            output = tmp_path / f"output-{len(list(tmp_path.glob('output-*')))}"
            with output.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, MANAGE, "demo", "--no-color", *arguments],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=env,
                    cwd=tmp_path,
                )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process, output

        yield start


def children(process):
    """Return the commands of what a process has started, by process id."""
    listing = subprocess.run(
        ["ps", "-ww", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    return {int(pid): args for pid, parent, args in rows if int(parent) == process.pid}


def alive(pid):
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in {"", "Z"}


def lines(output):
    """Return each kind's line: whether it went well, and the status that it ended in."""
    found = re.findall(r"^(ok|WRONG) +(.+?) {2,}(\S+)", output.read_text(), re.MULTILINE)
    return {kind: (said == "ok", status) for said, kind, status in found}


def test_the_check_runs_each_kind_to_its_end_and_leaves_nothing(demo, tmp_path):
    process, output = demo("--check")
    wait_for(lambda: len(children(process)) > 5 or process.poll() is not None, timeout=60, what="all to be started")
    started = children(process)
    assert process.wait(100) == 0, output.read_text()
    assert lines(output) == {kind: (True, status) for kind, status in KINDS.items()}
    assert not [pid for pid in started if alive(pid)]
    assert not list((tmp_path / "data").glob("check-*"))


@pytest.mark.single
def test_the_check_fails_when_the_handlers_are_stopped(demo, tmp_path):
    process, output = demo("--check", "--deadline=6")

    def handlers():
        return [pid for pid, args in children(process).items() if "services.app" in args]

    # Once the check itself runs, the handlers have been registered.
    wait_for(lambda: any("demo_check" in args for args in children(process).values()), timeout=60, what="the check")
    os.kill(handlers()[0], signal.SIGKILL)
    assert process.wait(100) == 1
    said = output.read_text()
    assert "The handlers' process has ended" in said
    assert set(lines(output)) == set(KINDS)
    assert not lines(output)["workflow"][0]
    assert re.search(r"\d+ of 10 went wrong: .*workflow", said)
    assert list((tmp_path / "data").glob("check-*/logs/worker.log")), "the logs stay"


@pytest.mark.single
def test_the_check_fails_at_once_where_no_restate_answers(demo):
    nowhere = f"http://127.0.0.1:{free_port()}"
    process, output = demo("--check", RESTATE_INGRESS_URL=nowhere, RESTATE_ADMIN_URL=nowhere)
    assert process.wait(60) == 1
    assert f"No Restate server answers at {nowhere}" in output.read_text()
    process, output = demo("--check", RESTATE_INGRESS_URL=nowhere)
    assert process.wait(60) == 1
    assert "Set both RESTATE_INGRESS_URL and RESTATE_ADMIN_URL" in output.read_text()


@pytest.mark.single
def test_the_check_runs_against_a_server_of_somebody_else(demo):
    with RestateServer() as restate:
        process, output = demo("--check", RESTATE_INGRESS_URL=restate.ingress_url, RESTATE_ADMIN_URL=restate.admin_url)
        assert process.wait(100) == 0, output.read_text()
        assert set(lines(output)) == set(KINDS)
        with requests.Session() as session:
            sql = "SELECT id FROM sys_invocation WHERE status <> 'completed'"
            headers = {"Accept": "application/json"}
            answer = session.post(f"{restate.admin_url}/query", json={"query": sql}, headers=headers, timeout=10)
        assert answer.json()["rows"] == [], "nothing is left open in it"


def test_the_demo_says_where_to_look_and_stops_on_ctrl_c(demo, tmp_path):
    require(sys.platform in {"linux", "darwin"}, "Restate has no server for this platform")

    def start():
        process, output = demo()

        def started():
            return "Ctrl-C stops everything" in output.read_text() or process.poll() is not None

        wait_for(started, timeout=90, what="the demo to be up")
        assert process.poll() is None, output.read_text()
        return process, output

    process, output = start()
    started = children(process)
    assert len(started) == 5, started
    said = output.read_text()
    shop, admin, ui = (re.search(rf"{what} +(http\S+)", said)[1] for what in ("shop", "admin", "UI"))
    with requests.Session() as session:
        for url, text in ((shop, "Corner Shop"), (admin, "Username"), (ui, "Restate")):
            answer = session.get(url, timeout=20)
            assert answer.status_code == 200
            assert text in answer.text

    other, second = demo()
    assert other.wait(60) == 1
    assert "is running in" in second.read_text()

    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not [pid for pid in started if alive(pid)]

    # What the last run has left does not stand in the way of the next; and a harder end leaves nothing either.
    process, _ = start()
    started = children(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not [pid for pid in started if alive(pid)]
