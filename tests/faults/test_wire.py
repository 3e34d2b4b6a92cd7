"""The wire between the app and the ingress does what wires and proxies do, to the first attempt at each row."""

from __future__ import annotations

from typing import Any, Final

from restate_django.breaker import FAILURES
from tests.faults.arena import Arena, bitten_by
from tests.faults.proxy import PASS, Gate, Plan, Request, answer
from tests.faults.scale import IN_FLIGHT, PATIENCE

PAGE: Final = b"<html><body>Bad Gateway</body></html>"

#: Restate took the request, and the answer says nothing of it.
MAY_HAVE_RUN: Final = {
    "cut before the answer": Plan(cut="before"),
    "cut inside the answer": Plan(cut="inside"),
    "500": Plan(answer=answer(500, b'{"message": "oh"}')),
    "503": Plan(answer=answer(503, b"")),
    "a proxy's page": Plan(answer=answer(502, PAGE, "text/html")),
    "an empty 202": Plan(answer=answer(202, b"")),
    "half a JSON": Plan(answer=answer(202, b'{"invocationId": "inv_1', x_restate_id="inv_1")),
}
#: Nothing came to Restate, whether the app can know it or not.
RAN_NOTHING: Final = {
    "cut before the request": Plan(forward=False, cut="before"),
    "cut after the answer": Plan(cut="after"),
    "429": Plan(forward=False, answer=answer(429, b'{"message": "later"}')),
    "a page that is not Restate's": Plan(forward=False, answer=answer(404, PAGE, "text/html")),
}


def do_to_first_attempts(arena: Arena, faults: dict[str, Plan], most: int | None = None, **changes: Any) -> None:
    """Let the relay deliver this many orders for each fault, over a wire that does it to all that is sent.

    Args:
        arena: Where it is done.
        faults: Plans by their titles.
        most: To so many orders only: those that take their time would take too long.
        changes: Keys of the relay's connection.
    """
    prefixes = {f"{arena.prefix}-{number}": plan for number, plan in enumerate(faults.values())}
    for prefix in prefixes:
        arena.record(prefix)
    seen: set[str] = set()

    def rule(request: Request) -> Plan:
        if not request.is_send or request.row is None:
            return PASS
        if most is None or len(seen) < most:
            seen.add(request.row)
        return prefixes[request.row.partition("/")[0]] if request.row in seen else PASS

    arena.ingress.rule = rule
    # It has that many times the rows of another fault, each of them twice.
    arena.finish(arena.start("deliver", **changes), PATIENCE * len(faults))
    arena.wait_until_idle()
    for title, prefix in zip(faults, prefixes, strict=True):
        arena.judge(f"wire: {title}", prefix, but_forgetful=True)


@bitten_by("a new key per attempt")
def test_answers_that_prove_nothing(arena: Arena) -> None:
    do_to_first_attempts(arena, MAY_HAVE_RUN)


@bitten_by("gives up")
def test_requests_that_do_not_arrive(arena: Arena) -> None:
    do_to_first_attempts(arena, RAN_NOTHING)


@bitten_by("a new key per attempt")
def test_an_answer_that_comes_too_late(arena: Arena) -> None:
    late = {"an answer later than the timeout": Plan(too_late=True)}
    do_to_first_attempts(arena, late, IN_FLIGHT, TIMEOUT=0.5)


@bitten_by("a new key per attempt")
def test_an_answer_that_never_comes(arena: Arena) -> None:
    gate = Gate()
    do_to_first_attempts(arena, {"no answer at all": Plan(hold_answer=gate)}, IN_FLIGHT, TIMEOUT=0.5)
    gate.drop()


@bitten_by("a new key per attempt")
def test_a_server_that_hangs_under_a_view(arena: Arena) -> None:
    """The process that sends from its views waits a few times, and leaves the rest to the relay."""
    gate = arena.hold_answers()
    sender = arena.start_sender(TIMEOUT=0.6)
    arena.finish(sender)
    arena.wait_until_logged(sender, "its rows are left to the relay")
    # One more, where so many rows took longer to record than the pause lasts.
    assert FAILURES <= arena.ingress.sends.came < arena.number / 2
    gate.drop()
    arena.wait_until_idle()
    arena.judge("wire: no answer at all, to a view", but_forgetful=True)


@bitten_by("gives up")
def test_settings_that_are_wrong(arena: Arena) -> None:
    """A wrong token, a wrong prefix and the paths of another release, one after the other; then they are corrected."""
    arena.record()
    paths_of_another_release = False

    def rule(request: Request) -> Plan:
        if request.headers.get("authorization") == "Bearer wrong":
            return Plan(forward=False, answer=answer(401, b'{"message": "unauthorized"}'))
        if paths_of_another_release and request.path.startswith("/restate/"):
            # What a server before 1.7 says of the newer ones.
            return Plan(forward=False, answer=answer(404, b'{"message": "not found"}'))
        return PASS

    arena.ingress.rule = rule
    # No grace: what looks like a service that is not registered would be given up at once.
    for changes in ({"TOKEN": "wrong"}, {"INGRESS_URL": f"{arena.ingress.url}/prefix"}, {"PATH_STYLE": "restate"}):
        paths_of_another_release = "PATH_STYLE" in changes
        came = arena.ingress.sends.came
        arena.finish(arena.start("deliver", REGISTRATION_GRACE=0, **changes))
        if not arena.mutant:
            assert arena.ingress.sends.came >= came + arena.number, f"Not each order was tried: {changes}"
    arena.judge("wire: wrong settings, corrected")
