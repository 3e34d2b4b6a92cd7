"""The process that polls is killed between reading and writing, and what it reads is not always an answer."""

from __future__ import annotations

from collections import Counter

from tests.faults.arena import Arena, bitten_by
from tests.faults.proxy import PASS, Plan, Request, answer
from tests.faults.scale import IN_FLIGHT


@bitten_by("no end to a lease")
def test_killed_while_it_reads(arena: Arena) -> None:
    arena.accept_all()
    gate = arena.hold_outputs()
    poller = arena.start("poll")
    gate.wait_for(IN_FLIGHT)
    poller.kill()
    gate.drop()
    arena.judge("poller killed while it reads")


@bitten_by("no end to a lease")
def test_killed_between_reading_and_writing(arena: Arena) -> None:
    arena.accept_all()
    gate = arena.hold_outputs()
    poller = arena.start("poll")
    gate.wait_for(IN_FLIGHT)
    with arena.locked_rows():
        gate.open()
        arena.ingress.wait_until(lambda: arena.ingress.others.given >= IN_FLIGHT, "the outputs came")
        arena.wait_until_blocked(poller)
        poller.kill()
        arena.forget_the_dead()
    arena.judge("poller killed between reading and writing")


@bitten_by("not knowing is failing")
def test_answers_that_tell_nothing(arena: Arena) -> None:
    """Each row's first readings are cut, refused, halved or somebody else's page, and so are the Admin API's."""
    arena.accept_all()
    nothing = (
        Plan(cut="before"),
        Plan(cut="inside"),
        Plan(answer=answer(503, b"{}")),
        Plan(answer=answer(502, b"<html>Bad Gateway</html>", "text/html")),
        Plan(answer=answer(404, b"<html>Not Found</html>", "text/html")),
        Plan(answer=answer(429, b'{"message": "later"}')),
    )
    times: Counter[str] = Counter()

    def rule(request: Request) -> Plan:
        times[request.path] += 1
        # More often than a row is asked about twice, each time with a repetition.
        return nothing[(len(times) + times[request.path]) % len(nothing)] if times[request.path] <= 6 else PASS

    arena.ingress.rule = rule
    asked = iter(nothing)
    arena.admin.rule = lambda request: next(asked, PASS) if request.path == "/query" else PASS
    arena.poll_through_the_proxies()
    arena.judge("polling: answers that tell nothing")
