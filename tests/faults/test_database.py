"""The database is gone for some seconds, while answers are on their way."""

from __future__ import annotations

from tests.faults.arena import Arena, bitten_by
from tests.faults.proxy import PASS
from tests.faults.scale import IN_FLIGHT


@bitten_by("a new key per attempt")
def test_gone_under_the_relay(arena: Arena) -> None:
    """The relay can't write down what it learned. It goes on when the database is back."""
    arena.record()
    gate = arena.hold_answers()
    with arena.a_database_that_goes() as (env, gone):
        relay = arena.start_relay(env=env)
        gate.wait_for(IN_FLIGHT)
        with gone():
            gate.open()
            arena.ingress.rule = lambda _request: PASS
            arena.wait_until_logged(relay, "The relay could not work, and goes on")
        arena.wait_until_idle()
        late = arena.record_one_more()
        arena.wait_until_accepted(late)
        assert relay.running, relay.log_tail()
        arena.judge("database gone under the relay", but_forgetful=True)


@bitten_by("a new key per attempt")
def test_gone_under_a_sender(arena: Arena) -> None:
    """What was sent after the commit can't be written down. The view has its answer all the same."""
    gate = arena.hold_answers()
    with arena.a_database_that_goes() as (env, gone):
        sender = arena.start_sender("--many", env=env)
        gate.wait_for(IN_FLIGHT)
        with gone():
            gate.open()
            arena.finish(sender)
        arena.wait_until_idle()
        arena.judge("database gone under a sender", but_forgetful=True)
