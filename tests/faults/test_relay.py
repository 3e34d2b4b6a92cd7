"""The relay is killed, at each point of its way."""

from __future__ import annotations

from tests.faults.arena import Arena, bitten_by
from tests.faults.scale import IN_FLIGHT


@bitten_by("no lease")
def test_killed_before_its_claim_is_written(arena: Arena) -> None:
    """It has found the rows, and could not take them: nothing of them may have come to Restate."""
    arena.record()
    with arena.locked_rows():
        relay = arena.start_relay()
        arena.wait_until_blocked(relay)
        if not arena.mutant:
            assert arena.ingress.sends.came == 0
        relay.kill()
        arena.forget_the_dead()
    arena.wait_until_idle()
    arena.judge("relay killed before its claim is written")


@bitten_by("no end to a lease")
def test_killed_before_the_request_left(arena: Arena) -> None:
    """It has taken the rows, and nothing of them has come to Restate."""
    arena.record()
    gate = arena.hold_requests()
    relay = arena.start_relay()
    gate.wait_for(IN_FLIGHT)
    relay.kill()
    gate.drop()
    arena.judge("relay killed before the request left", but_forgetful=True)


@bitten_by("a new key per attempt", "no window")
def test_killed_after_the_request_left(arena: Arena) -> None:
    arena.record()
    gate = arena.hold_answers()
    relay = arena.start_relay()
    gate.wait_for(IN_FLIGHT)
    relay.kill()
    gate.drop()
    arena.wait_until_idle()
    arena.judge("relay killed after the request left", but_forgetful=True)


@bitten_by("a new key per attempt", "no lease")
def test_killed_after_the_answers_came(arena: Arena) -> None:
    """It knew of many, and could write down none."""
    arena.record()
    gate = arena.hold_answers()
    relay = arena.start_relay()
    gate.wait_for(IN_FLIGHT)
    with arena.locked_rows():
        gate.open()
        sends = arena.ingress.sends
        # It keeps some answers in hand before it writes.
        arena.ingress.wait_until(lambda: sends.given >= min(arena.number, 250), "the answers came")
        arena.wait_until_blocked(relay)
        relay.kill()
        arena.forget_the_dead()
    arena.wait_until_idle()
    arena.judge("relay killed after the answers came", but_forgetful=True)


@bitten_by("a new key per attempt")
def test_killed_in_the_middle(arena: Arena) -> None:
    arena.record()
    gate = arena.hold_both(arena.number // 2)
    relay = arena.start_relay()
    gate.wait_for(IN_FLIGHT)
    relay.kill()
    gate.drop()
    arena.wait_until_idle()
    arena.judge("relay killed in the middle of a sweep", but_forgetful=True)
