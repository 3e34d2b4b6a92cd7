"""Targets whose handlers are attributes: what is sent through them, read by them, and refused."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import traceback
import uuid
from datetime import timedelta

import pydantic
import pytest
from asgiref.sync import async_to_sync

from restate_django import Outgoing, Service, VirtualObject, Workflow, send, send_many
from restate_django.client import NO_PAYLOAD, OutputState
from restate_django.exceptions import (
    CallTimeout,
    IdempotencyConflict,
    InvalidRequest,
    InvocationFailed,
    NotFound,
    OutputInvalid,
)
from restate_django.models import Invocation
from restate_django.typed import Handler, MainHandler, ObjectTarget, ServiceTarget, WorkflowTarget
from tests.wait import wait_for


def new_key() -> str:
    """The server outlives each test's database: no two tests share a workflow or an object."""
    return uuid.uuid4().hex


# ---------------------------------------------------------------- without a server


def test_a_handler_says_what_it_is():
    handler = VirtualObject("Cart")["cart-1"].add
    assert (handler.service, handler.key, handler.name) == ("Cart", "cart-1", "add")
    assert repr(handler) == "<Handler Cart/cart-1/add>"
    assert repr(Service("Greeter").greet) == "<Handler Greeter/greet>"
    assert repr(Workflow("Signup")["mary"].run) == "<MainHandler Signup/mary/run>"
    assert repr(VirtualObject("Cart")["cart-1"]) == "VirtualObject('Cart')['cart-1']"
    assert handler == VirtualObject("Cart")["cart-1"].add
    assert len({VirtualObject("Cart")["a"], VirtualObject("Cart")["a"], VirtualObject("Cart")["b"]}) == 2


def test_a_handler_of_any_name_can_be_had():
    assert Service("Greeter").handler("handler").name == "handler"
    assert Service("Greeter").handler("_greet").name == "_greet"
    assert VirtualObject("Cart")["c"].handler("class").name == "class"


def test_objects_of_the_official_sdk_name_a_target():
    import restate

    assert Service(restate.Service("Greeter")).greet.service == "Greeter"
    assert Workflow(restate.Workflow("Signup"))["mary"].run.service == "Signup"
    with pytest.raises(InvalidRequest, match="service must be a name"):
        Service(3)


def test_names_with_an_underscore_are_pythons_own():
    for target in (Service("Greeter"), VirtualObject("Cart"), VirtualObject("Cart")["c"], Workflow("Signup")["m"]):
        with pytest.raises(AttributeError, match=r'Use \.handler\("_greet"\)'):
            _ = target._greet
        assert not hasattr(target, "__html__")
        # What asks objects for such names gets no handler.
        assert copy.deepcopy(target) == target
        assert pickle.loads(pickle.dumps(target)) == target
    assert pickle.loads(pickle.dumps(Service("Greeter").greet)) == Service("Greeter").greet


def test_an_object_needs_a_key_and_a_service_has_none():
    with pytest.raises(InvalidRequest, match=r"VirtualObject\('Cart'\)\[key\]\.add"):
        _ = VirtualObject("Cart").add
    with pytest.raises(InvalidRequest, match=r"Workflow\('Signup'\)\[key\]\.run"):
        _ = Workflow("Signup").run
    with pytest.raises(InvalidRequest, match="has no keys"):
        Service("Greeter")["mary"]
    for odd in ("", 3, None, "a\nb", ".."):
        with pytest.raises(InvalidRequest, match="key"):
            VirtualObject("Cart")[odd]
    with pytest.raises(InvalidRequest, match="is a service's: it has no key"):
        Service("Greeter").greet.send({}, key="mary")
    with pytest.raises(InvalidRequest, match="has its key already"):
        VirtualObject("Cart")["a"].add.send({}, key="b")
    with pytest.raises(InvalidRequest, match="choose the workflow first"):
        MainHandler("Signup", "run").attach()


def test_they_are_there_before_the_registry_is_ready():
    """A module of targets may be imported by a ``models.py``, or by a project's ``celery.py``."""
    code = (
        "from restate_django import Service, VirtualObject, Workflow\n"
        "from restate_django.typed import ServiceTarget\n"
        "from django.apps import apps; from django.conf import settings\n"
        "assert not apps.ready; assert not settings.configured\n"
        "print(VirtualObject('Cart')['c'].add)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("<Handler Cart/c/add>\n", "")


def test_outgoing_is_what_send_many_takes():
    made = VirtualObject("Cart")["c"].add.outgoing({"sku": "mug"}, delay=timedelta(hours=1), headers={"X-A": "1"})
    assert made == Outgoing("Cart", "add", {"sku": "mug"}, key="c", delay=timedelta(hours=1), headers={"X-A": "1"})
    assert Service("NoInput").ping.outgoing() == Outgoing("NoInput", "ping", NO_PAYLOAD)


# ---------------------------------------------------------------- on a server

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_sends_and_calls(restate):
    row = Service("Greeter").greet.send({"name": "Mary"}, idempotency_key=new_key(), headers={"X-Tenant": "acme"})
    assert (row.target, row.verb, row.headers) == ("Greeter/greet", "send", {"X-Tenant": "acme"})
    assert row.attach(timeout=10) == "Hello, Mary!"
    assert Service("Greeter").greet.call({"name": "Joe"}, timeout=10) == "Hello, Joe!"
    assert Service("NoInput").ping.call() == "pong"
    assert Invocation.objects.get(service="NoInput").content_type == ""
    later = Service("Greeter").greet.send({"name": "Ann"}, delay=timedelta(hours=1))
    assert later.run_at is not None
    later.cancel()
    with pytest.raises(InvalidRequest, match="call\\(\\) takes no delay"):
        Service("Greeter").greet.call({"name": "Joe"}, delay=timedelta(hours=1))
    with pytest.raises(InvocationFailed) as failed:
        Service("Fail").terminal.call({"message": "no", "code": 418})
    assert failed.value.code == 418


def test_an_object_keeps_its_keys_apart(restate):
    first, second = (VirtualObject("Counter")[new_key()] for _ in range(2))
    assert first.add.call(2) == 2
    assert first.add.call(3) == 5
    assert second.get.call() == 0
    key = new_key()
    row = first.add.send(1, idempotency_key=key)
    assert first.add.send(1, idempotency_key=key) == row
    assert second.add.send(1, idempotency_key=key) != row
    with pytest.raises(IdempotencyConflict):
        first.add.send(2, idempotency_key=key)


def test_many_are_sent_by_their_targets(restate):
    counter = VirtualObject("Counter")[new_key()]
    rows = send_many([counter.add.outgoing(number) for number in (1, 2, 3)])
    assert max(row.attach(timeout=10) for row in rows) == 6


def test_coroutines_have_their_twins(restate):
    async def story():
        row = await Service("Greeter").greet.asend({"name": "Mary"})
        sent = await row.aattach(timeout=10)
        called = await Service("Greeter").greet.acall({"name": "Joe"}, timeout=10)
        signup = Workflow("Signup")[new_key()]
        await signup.run.asend({"email": "mary@example.com"})
        attached = await signup.run.aattach(timeout=10)
        known = await signup.run.aoutput()
        return sent, called, attached, known

    sent, called, attached, known = async_to_sync(story)()
    assert (sent, called) == ("Hello, Mary!", "Hello, Joe!")
    assert attached == known.value == {"email": "mary@example.com", "confirmed": True}


# ---------------------------------------------------------------- workflows, by their key


def test_a_workflow_is_waited_for_by_its_key(restate):
    signup = Workflow("Signup")[new_key()]
    row = signup.run.send({"email": "mary@example.com", "seconds": 1})
    known = signup.run.output()
    assert (known.state, known.ready) == (OutputState.NOT_READY, False)
    with pytest.raises(CallTimeout):
        _ = known.value
    with pytest.raises(CallTimeout) as late:
        signup.run.attach(timeout=0.1)
    assert late.value.invocation == row
    assert signup.status.call() in {"waiting", "confirmed"}
    wanted = {"email": "mary@example.com", "confirmed": True}
    assert signup.run.attach(timeout=10) == wanted
    row.refresh_from_db()
    assert row.status == "succeeded", "who waits writes down what he saw"
    known = signup.run.output()
    assert (known.ready, known.value) == (True, wanted)


def test_a_workflow_that_somebody_else_sent_needs_no_row(restate):
    from restate_django.connections import connections

    key = new_key()
    signup = Workflow("Signup")[key]
    connections["default"].ingress.send("Signup", "run", {"email": "joe@example.com", "seconds": 1}, key=key)
    with pytest.raises(CallTimeout, match="It goes on"):
        signup.run.attach(timeout=0.1)
    assert signup.run.attach(timeout=10) == {"email": "joe@example.com", "confirmed": True}
    assert signup.run.output().ready
    assert not Invocation.objects.exists()


def test_the_last_release_with_the_old_paths_knows_workflows_by_their_key(legacy_restate_server, settings):
    from restate_django.connections import connections

    settings.RESTATE = {
        "default": {"INGRESS_URL": legacy_restate_server.ingress_url, "ADMIN_URL": legacy_restate_server.admin_url}
    }
    key = new_key()
    signup = Workflow("Signup")[key]
    assert signup.run.output().state is OutputState.UNKNOWN
    connections["default"].ingress.send("Signup", "run", {"email": "joe@example.com", "seconds": 1}, key=key)
    assert signup.run.output().state is OutputState.NOT_READY
    assert signup.run.attach(timeout=10)["confirmed"] is True
    assert signup.run.output().ready


def test_a_workflow_that_nobody_sent_is_not_found(restate):
    signup = Workflow("Signup")[new_key()]
    with pytest.raises(NotFound, match="no row here has its key"):
        signup.run.attach(timeout=5)
    assert signup.run.output().state is OutputState.UNKNOWN
    with pytest.raises(NotFound):
        _ = signup.run.output().value


def test_the_row_remembers_what_restate_has_forgotten(restate):
    from restate_django.connections import connections

    signup = Workflow("Signup")[new_key()]
    row = signup.run.send({"email": "mary@example.com"})
    wanted = signup.run.attach(timeout=10)
    row.refresh_from_db()
    connections["default"].admin.purge_invocation(row.invocation_id)
    target = f"{row.target} to be forgotten"
    ingress = connections["default"].ingress
    wait_for(lambda: ingress.output(row.invocation_id).state is OutputState.UNKNOWN, what=target)
    assert signup.run.attach(timeout=5) == wanted
    assert signup.run.output().value == wanted


def test_a_workflow_that_is_not_sent_yet_is_waited_for(restate, settings):
    there = settings.RESTATE
    settings.RESTATE = {"default": {**there["default"], "DELIVERY": "relay"}}
    signup = Workflow("Signup")[new_key()]
    signup.run.send({"email": "mary@example.com"})
    # Nobody can know that it is a workflow's main handler before the server was asked, which delivery does.
    from restate_django.delivery import deliver_due

    assert signup.run.output().state in {OutputState.NOT_READY, OutputState.UNKNOWN}
    deliver_due()
    assert signup.run.attach(timeout=10)["confirmed"] is True


def test_a_failed_workflow_raises_its_failure(restate):
    signup = Workflow("Signup")[new_key()]
    row = signup.run.send({"email": "mary@example.com", "seconds": 60})
    row.kill()
    with pytest.raises(InvocationFailed, match="killed"):
        signup.run.attach(timeout=10)
    known = signup.run.output()
    assert known.state is OutputState.FAILED
    with pytest.raises(InvocationFailed, match="killed"):
        _ = known.value


def test_only_the_main_handler_is_asked_for_by_key(restate):
    signup = Workflow("Signup")[new_key()]
    for ask in (signup.status.attach, signup.status.output, Workflow("Greeter")["x"].greet.attach):
        with pytest.raises(InvalidRequest, match="is not the main handler"):
            ask()


# ---------------------------------------------------------------- the base of generated targets


class Confirmation(pydantic.BaseModel):
    email: str
    confirmed: bool


class SignupWorkflow(WorkflowTarget, service="Signup"):
    @property
    def run(self) -> MainHandler[dict, Confirmation]:
        return self._main_handler("run", Confirmation)


class Counter(ObjectTarget, service="Counter"):
    @property
    def add(self) -> Handler[int, int]:
        return self._handler("add")


class Greeter(ServiceTarget, service="Greeter"):
    @property
    def greet(self) -> Handler[dict, str]:
        return self._handler("greet", Confirmation)  # a type that its output does not fit


def test_outputs_become_what_the_target_says(restate):
    signup = SignupWorkflow(new_key())
    wanted = Confirmation(email="mary@example.com", confirmed=True)
    row = signup.run.send({"email": "mary@example.com"})
    assert signup.run.attach(timeout=10) == signup.run.output().value == wanted
    row.refresh_from_db()
    assert signup.run.parse_output(row.output_value) == wanted
    assert SignupWorkflow(new_key()).run.call({"email": "joe@example.com"}).email == "joe@example.com"
    assert Counter(new_key()).add.call(4) == 4


def test_an_output_that_does_not_fit_says_that_it_ran(restate):
    with pytest.raises(OutputInvalid, match="restate_codegen") as caught:
        Greeter().greet.call({"name": "Mary"})
    assert caught.value.value == "Hello, Mary!"
    assert caught.value.may_have_run
    assert "(as a whole: Input should be" in str(caught.value)
    assert "Hello, Mary" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(OutputInvalid, match=r"\(confirmed: Field required\)"):
        SignupWorkflow("x").run.parse_output({"email": "mary@example.com"})
    assert Invocation.objects.get().status == "succeeded"


def test_generated_targets_have_a_key_where_they_need_one():
    with pytest.raises(TypeError, match="key"):
        Counter()
    with pytest.raises(TypeError):
        Greeter("mary")
    with pytest.raises(InvalidRequest, match="key"):
        Counter("")
    assert repr(Counter("a")) == "Counter('a')"
    assert repr(Greeter()) == "Greeter()"
    assert Counter("a") == Counter("a") != Counter("b")
    assert len({Counter("a"), Counter("a")}) == 1
    with pytest.raises(AttributeError):
        _ = Counter("a").ad  # a typing error is one, and no handler


def test_a_model_is_a_payload(restate):
    class Person(pydantic.BaseModel):
        name: str

    assert Service("Greeter").greet.call(Person(name="Mary")) == "Hello, Mary!"
    row = send("Greeter", "greet", Person(name="Joe"))
    assert row.payload == {"name": "Joe"}
