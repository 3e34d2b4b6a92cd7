"""The process that sends is killed, at each point of its way."""

from __future__ import annotations

from tests.faults.arena import Arena, bitten_by
from tests.faults.proxy import Gate, Plan, Request
from tests.faults.scale import IN_FLIGHT


@bitten_by("sends before the commit")
def test_killed_before_the_commit(arena: Arena) -> None:
    """Nothing was recorded, so nothing may run; who asked gets an error, and asks again."""
    gate = Gate()

    def charge(request: Request) -> Plan:
        return Plan(hold_request=gate) if request.path == "/charge" else Plan()

    arena.ingress.rule = charge
    sender = arena.start_sender("--charge", f"{arena.ingress.url}/charge")
    gate.wait_for(1)
    sender.kill()
    gate.drop()
    if not arena.mutant:
        assert arena.ingress.sends.came == 0
    arena.finish(arena.start_sender("--many"))
    arena.judge("sender killed before the commit")


@bitten_by("no end to a lease")
def test_killed_after_the_commit(arena: Arena) -> None:
    """The row is there, and the process that was to send it is not."""
    gate = arena.hold_requests()
    sender = arena.start_sender()
    gate.wait_for(1)
    sender.kill()
    gate.drop()
    arena.judge("sender killed after the commit", but_forgetful=True)


@bitten_by("a new key per attempt")
def test_killed_after_the_request_left(arena: Arena) -> None:
    """Restate took it, and the process that asked never heard so."""
    gate = arena.hold_answers()
    sender = arena.start_sender()
    gate.wait_for(1)
    sender.kill()
    gate.drop()
    arena.wait_until_idle()
    arena.judge("sender killed after the request left", but_forgetful=True)


@bitten_by("a new key per attempt")
def test_killed_after_the_answer_came(arena: Arena) -> None:
    """The process knew, and could not write it down: the database was busy until it died."""
    gate = arena.hold_answers()
    sender = arena.start_sender()
    gate.wait_for(1)
    with arena.locked_rows():
        gate.open()
        arena.ingress.wait_until(lambda: arena.ingress.sends.given == 1, "an answer came")
        arena.wait_until_blocked(sender)
        sender.kill()
        arena.forget_the_dead()
    arena.wait_until_idle()
    arena.judge("sender killed after the answer came", but_forgetful=True)


@bitten_by("a new key per attempt", "no window", "no lease", "no end to a lease")
def test_killed_with_many_in_flight(arena: Arena) -> None:
    """The same in the middle of a bulk send: some have run, some are on their way, some have not been touched."""
    gate = arena.hold_answers(arena.number // 2)
    sender = arena.start_sender("--many")
    gate.wait_for(IN_FLIGHT)
    sender.kill()
    gate.drop()
    arena.wait_until_idle()
    arena.judge("sender killed in the middle of send_many", but_forgetful=True)


@bitten_by("a new key per attempt", "no lease")
def test_killed_while_requests_go_and_answers_come(arena: Arena) -> None:
    """It dies with half of the answers in hand; of the other orders some go there, and some come back."""
    gate = arena.hold_both(arena.number // 2)
    sender = arena.start_sender("--many")
    gate.wait_for(IN_FLIGHT)
    sender.kill()
    gate.drop()
    arena.wait_until_idle()
    arena.judge("sender killed while requests go and answers come", but_forgetful=True)


@bitten_by("no window")
def test_killed_and_its_request_comes_late(arena: Arena) -> None:
    """Requests that were on the wire when their sender died come to Restate after the relay's."""
    gate = arena.hold_requests()
    sender = arena.start_sender("--many")
    gate.wait_for(IN_FLIGHT)
    sender.kill()
    arena.deliver_what_was_left()
    gate.open()
    arena.wait_until_late_requests_came()
    arena.wait_until_idle()
    arena.judge("sender killed, its requests come late", but_forgetful=True)
