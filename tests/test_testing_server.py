"""The launcher of real servers: they come up, keep their data and ports, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import requests

from restate_django.testing import HandlerServer, NoServerError, RestateServer, StartError, binary, owned
from restate_django.testing.process import ChildProcess, ClaimedPort, claim_port, free_port, port_is_free
from tests.conftest import ROOT
from tests.wait import wait_for

pytestmark = pytest.mark.once


def http(method, url, **kwargs):
    """Talk to a server without the code under test, and leave no socket open."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, timeout=20, **kwargs)


def alive(pid):
    """Tell whether a process runs; one that only waits to be collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_answers_when_start_returns_and_is_gone_after_stop():
    with RestateServer() as restate:
        assert http("GET", f"{restate.admin_url}/version").json()["version"]
        assert http("GET", f"{restate.ingress_url}/restate/health").status_code == 200
        data_dir, pid = restate.data_dir, restate.pid
        assert data_dir.is_dir()
        assert restate.running
    assert not alive(pid)
    assert not data_dir.exists()
    assert not restate.running


def test_two_servers_live_side_by_side(restate_server):
    with RestateServer() as restate:
        ports = {restate.ingress_port, restate.admin_port, restate.node_port}
        other = restate_server.server
        assert ports.isdisjoint({other.ingress_port, other.admin_port, other.node_port})


def test_a_chosen_version_is_that_version(legacy_restate_server):
    assert http("GET", f"{legacy_restate_server.admin_url}/version").json()["version"] == "1.6.2"


def test_a_kill_loses_nothing_and_keeps_the_ports(make_restate):
    running = make_restate()
    urls = running.ingress_url, running.admin_url
    sent = http("POST", f"{running.ingress_url}/restate/send/Slow/sleep", json={"seconds": 1.5})
    assert sent.status_code == 202
    pid = running.server.pid
    running.server.kill()
    assert not alive(pid)
    with pytest.raises(requests.ConnectionError):
        http("GET", f"{running.ingress_url}/restate/health")
    running.server.start()
    assert (running.ingress_url, running.admin_url) == urls
    output = f"{running.ingress_url}/restate/output/{sent.json()['invocationId']}"
    answer = wait_for(
        lambda: http("GET", output) if http("GET", output).status_code != 470 else None, what="the sleeper to wake up"
    )
    assert (answer.status_code, answer.json()) == (200, "slept")


def test_a_restart_keeps_the_deployments_and_a_wipe_forgets_them(make_restate):
    running = make_restate()
    running.server.restart()
    assert http("GET", f"{running.admin_url}/services/Greeter").status_code == 200
    running.server.wipe()
    assert http("GET", f"{running.admin_url}/services/Greeter").status_code == 404
    running.handlers.register(running.admin_url)
    greeting = http("POST", f"{running.ingress_url}/restate/call/Greeter/greet", json={"name": "Mary"})
    assert greeting.json() == "Hello, Mary!"


def test_scopes_can_be_turned_on(scoped_restate_server):
    url = f"{scoped_restate_server.ingress_url}/restate/scope/tenant-a/call/Echo/describe"
    answer = http("POST", url, data=b"\x00\xff", headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["scope"] == "tenant-a"


def test_handlers_survive_a_kill_on_their_port(make_restate):
    running = make_restate()
    url = running.handlers.url
    running.handlers.kill()
    sent = http("POST", f"{running.ingress_url}/restate/send/Greeter/greet", json={"name": "Mary"})
    assert sent.status_code == 202
    running.handlers.start()
    assert running.handlers.url == url
    attach = http("GET", f"{running.ingress_url}/restate/attach/{sent.json()['invocationId']}")
    assert attach.json() == "Hello, Mary!"


def test_handlers_end_in_an_orderly_way_also_while_restate_holds_connections(make_restate):
    running = make_restate()
    pid = running.handlers.pid
    sent = http("POST", f"{running.ingress_url}/restate/send/Slow/sleep", json={"seconds": 60}).json()
    # It runs, so Restate has a connection open for it, and leaves it open.
    query = {"query": f"SELECT status FROM sys_invocation WHERE id = '{sent['invocationId']}'"}
    asked = {"json": query, "headers": {"Accept": "application/json"}}
    wait_for(
        lambda: http("POST", f"{running.admin_url}/query", **asked).json()["rows"] == [{"status": "running"}],
        what="the invocation to run",
    )
    running.handlers._end()
    assert running.handlers._process.returncode == 0
    assert not alive(pid)


def test_a_server_that_does_not_come_up_says_why(tmp_path):
    with pytest.raises(StartError, match=r"(?s)ended with exit code.*The end of .*server.log.*not-a-number"):
        RestateServer(env={"RESTATE_DEFAULT_NUM_PARTITIONS": "not-a-number"}, data_dir=tmp_path).start()


def test_a_server_that_failed_leaves_its_log_and_nothing_else():
    failed = RestateServer(env={"RESTATE_DEFAULT_NUM_PARTITIONS": "not-a-number"})
    with pytest.raises(StartError):
        failed.start()
    assert [path.name for path in failed.data_dir.iterdir()] == ["server.log"]
    failed.stop()
    assert not failed.running


def test_handlers_that_can_not_be_imported_say_why(tmp_path):
    with pytest.raises(StartError, match=r"(?s)tests\.nowhere:app.*ended with exit code.*nowhere"):
        HandlerServer("tests.nowhere:app", cwd=ROOT, log_file=tmp_path / "log").start()


def test_a_refused_registration_says_why(restate_server):
    handlers = HandlerServer("tests.handlers:app", cwd=ROOT)
    handlers.port = free_port()  # nothing listens there
    with pytest.raises(StartError, match=r"refused tests.handlers:app"):
        handlers.register(restate_server.admin_url)
    handlers.stop()


def test_a_port_that_is_taken_is_passed_over():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not port_is_free(port)
        with RestateServer(ingress_port=port, admin_port=port) as restate:
            assert port not in {restate.ingress_port, restate.admin_port}
        with HandlerServer("tests.handlers:app", cwd=ROOT, port=port) as handlers:
            assert handlers.port != port


def test_a_wish_for_ports_is_granted_when_they_are_free():
    port = free_port()
    with RestateServer(ingress_port=port) as restate:
        assert restate.ingress_port == port


def test_a_port_lost_between_choice_and_start_is_tried_again(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        choices = iter([ClaimedPort(port, None)])
        monkeypatch.setattr(owned, "claim_port", lambda wanted=None: next(choices, None) or claim_port(wanted))
        with RestateServer() as restate:
            assert restate.ingress_port != port
            assert restate.running


def test_a_claimed_port_is_nobody_elses_until_it_is_released():
    first = claim_port()
    code = f"from restate_django.testing.process import claim_port; print(claim_port({first.number}).number)"

    def claim_elsewhere():
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT).stdout)

    assert claim_elsewhere() != first.number
    second = claim_port(first.number)
    assert second.number != first.number
    second.release()
    first.release()
    assert claim_elsewhere() == first.number


def test_two_that_want_the_same_port_at_once_both_come_up(tmp_path):
    port = free_port()
    code = textwrap.dedent(
        f"""
        import sys
        from restate_django.testing import HandlerServer, RestateServer
        with HandlerServer("tests.handlers:app", port={port}) as handlers:
            print(handlers.port, flush=True)
            sys.stdin.read()
            assert handlers.running
        """
    )
    command = [sys.executable, "-c", code]
    several = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]
    ports = {int(process.stdout.readline()) for process in several}
    for process in several:
        process.communicate(timeout=20)
    assert len(ports) == 3
    assert [process.returncode for process in several] == [0, 0, 0]


# ---------------------------------------------------------------- the handlers that the tests run against


def query(running, invocation_id):
    sql = f"SELECT status, completion_failure FROM sys_invocation WHERE id = '{invocation_id}'"
    answer = http("POST", f"{running.admin_url}/query", json={"query": sql}, headers={"Accept": "application/json"})
    return (answer.json()["rows"] or [{}])[0]


def send(running, path, value):
    answer = http("POST", f"{running.ingress_url}/restate/send/{path}", json=value)
    assert answer.status_code == 202, answer.text
    return answer.json()["invocationId"]


def test_a_broken_handler_is_paused_after_its_last_attempt(restate_server):
    invocation_id = send(restate_server, "Fail/always", {})
    wait_for(lambda: query(restate_server, invocation_id).get("status") == "paused", what="it to be paused")


def test_a_cancelled_handler_compensates(restate_server):
    invocation_id = send(restate_server, "Slow/sleep", {"seconds": 600, "note": "compensation-of-slow"})
    wait_for(lambda: query(restate_server, invocation_id).get("status") in {"running", "suspended"}, what="it to run")
    cancel = f"{restate_server.admin_url}/invocations/{invocation_id}/cancel"
    assert http("PATCH", cancel).status_code == 202
    wait_for(lambda: query(restate_server, invocation_id)["status"] == "completed", what="it to end")
    notes = f"{restate_server.ingress_url}/restate/call/Notes/compensation-of-slow/get"
    wait_for(lambda: http("POST", notes).json() == ["compensated"], what="the note")


def test_an_awakeable_waits_for_its_answer(restate_server):
    invocation_id = send(restate_server, "Approval/ask", {"note": "an-approval"})
    notes = f"{restate_server.ingress_url}/restate/call/Notes/an-approval/get"
    awakeable = wait_for(lambda: http("POST", notes).json(), what="the awakeable's id")[0]
    assert http("POST", f"{restate_server.ingress_url}/restate/awakeables/{awakeable}/resolve", json="yes").ok
    assert http("GET", f"{restate_server.ingress_url}/restate/attach/{invocation_id}").json() == "yes"


def test_the_ledger_says_what_ran_where(restate_server):
    invocation_id = send(restate_server, "Ledger/write", {"row": "one"})
    http("GET", f"{restate_server.ingress_url}/restate/attach/{invocation_id}")
    assert {"row": "one", "invocation_id": invocation_id} in restate_server.ledger()


# ---------------------------------------------------------------- nothing stays behind


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_a_killed_parent_takes_its_servers_along(tmp_path):
    code = textwrap.dedent(
        """
        import signal
        from restate_django.testing import HandlerServer, RestateServer
        restate = RestateServer().start()
        handlers = HandlerServer("tests.handlers:app").start()
        print(restate.pid, handlers.pid, flush=True)
        signal.pause()
        """
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # who is killed can not tidy up
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(map(alive, pids)), what="the servers to end with their parent")


def test_a_kill_reaches_what_the_child_started(tmp_path):
    code = "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); c.wait()"
    child = ChildProcess([sys.executable, "-c", code], name="A parent", log_file=tmp_path / "log")
    child.start()
    grandchild = int(wait_for((tmp_path / "log").read_text, what="the grandchild's id"))
    assert alive(grandchild)
    child.kill()
    wait_for(lambda: not alive(grandchild), what="the grandchild to end")


def test_a_child_that_ignores_the_polite_request_is_killed(tmp_path):
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    child = ChildProcess([sys.executable, "-c", code], name="A deaf one", log_file=tmp_path / "log")
    child.start()
    wait_for((tmp_path / "log").read_text, what="it to be up")
    child.stop(timeout=0.2)
    assert child.returncode == -signal.SIGKILL


def test_a_child_that_is_never_ready_is_given_up(tmp_path):
    child = ChildProcess(["sleep", "60"], name="A sleeper", log_file=tmp_path / "log")
    child.start()
    with pytest.raises(StartError, match=r"A sleeper was not ready after 0\.1 seconds"):
        child.wait_until(lambda: False, timeout=0.1)
    assert not child.running


# ---------------------------------------------------------------- where the program comes from


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine without any restate-server and with an empty cache."""
    monkeypatch.delenv("RESTATE_SERVER", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def script(path, text):
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def test_the_environment_variable_names_the_program(nowhere, monkeypatch):
    program = script(nowhere / "mine", "print('restate-server 9.9.9')")
    monkeypatch.setenv("RESTATE_SERVER", str(program))
    assert binary.find_binary() == program
    assert binary.find_binary("9.9.9") == program


def test_a_wrong_environment_variable_is_an_error_not_a_download(nowhere, monkeypatch):
    monkeypatch.setenv("RESTATE_SERVER", str(nowhere / "missing"))
    with pytest.raises(NoServerError, match=r"RESTATE_SERVER is .*missing"):
        binary.find_binary()


def test_the_path_serves_unless_another_version_is_asked_for(nowhere):
    program = script(nowhere / "bin" / "restate-server", "print('restate-server 9.9.9')")
    assert binary.find_binary() == program
    with pytest.raises(NoServerError, match=r"no restate-server 1.6.2 on this machine, and no npm"):
        binary.find_binary("1.6.2")


def test_without_anything_the_error_says_what_to_do(nowhere):
    with pytest.raises(NoServerError, match=r"Install Node.js with npm, or put a restate-server on the PATH"):
        RestateServer().start()


def test_a_version_that_is_none_is_never_given_to_npm(nowhere):
    with pytest.raises(NoServerError, match="is not a version of Restate"):
        binary.find_binary("../../etc")


FAKE_NPM = """
import os, pathlib, sys, time
prefix, package = sys.argv[sys.argv.index("--prefix") + 1], sys.argv[-1]
with open(os.environ["NPM_CALLS"], "a") as calls:
    calls.write(package + chr(10))
if os.environ.get("NPM_FAILS"):
    sys.exit("npm error: no network")
program = pathlib.Path(prefix, "node_modules", "@restatedev/restate-server-" + os.environ["PLATFORM"], "bin")
program.mkdir(parents=True)
(program / "restate-server").write_text("half")
time.sleep(0.3)
(program / "restate-server").write_text("whole")
"""


@pytest.fixture
def fake_npm(nowhere, monkeypatch):
    """An npm that takes a moment, and notes how often it was called."""
    script(nowhere / "bin" / "npm", FAKE_NPM)
    monkeypatch.setenv("NPM_CALLS", str(nowhere / "calls"))
    monkeypatch.setenv("PLATFORM", binary._platform())
    return nowhere / "calls"


def test_npm_installs_once_and_the_cache_serves_from_then_on(fake_npm, capfd):
    first = binary.find_binary()
    assert first.read_text() == "whole"
    assert "Installing @restatedev/restate-server@1.7.12 with npm" in capfd.readouterr().err
    assert binary.find_binary() == first
    assert fake_npm.read_text() == "@restatedev/restate-server@1.7.12\n"
    assert capfd.readouterr().err == ""


def test_several_processes_at_once_download_once_and_see_nothing_half_done(fake_npm):
    code = "from restate_django.testing import binary; print(binary.find_binary().read_text())"
    several = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        for _ in range(4)
    ]
    assert [process.communicate(timeout=30)[0] for process in several] == ["whole\n"] * 4
    assert fake_npm.read_text().count("\n") == 1


def test_a_failed_install_leaves_nothing_and_quotes_npm(fake_npm, monkeypatch):
    monkeypatch.setenv("NPM_FAILS", "1")
    with pytest.raises(NoServerError, match=r"(?s)could not install .*npm error: no network"):
        binary.find_binary()
    left = [path for path in binary.cache_dir().iterdir() if not path.name.startswith(".")]
    assert left == []
    monkeypatch.delenv("NPM_FAILS")
    assert os.fspath(binary.find_binary()).endswith("restate-server")
