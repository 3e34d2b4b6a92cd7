"""What each answer means: every row of every table by an example, and nothing that is unknown taken for success."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restate_django.client.ingress import describe
from restate_django.client.outcomes import TABLES, Meaning, Outcome, classify, final_status, parse_time

ID = "inv_1fhdLEo6AyEH1AWuM0SxC8h1wnBPsAsNcS"
OTHER_ID = "inv_1bBtpXeOGpvP6LCtCND899C2uneaMernfr"
JSON = {"content-type": "application/json"}
INGRESS = JSON | {"x-restate-error-source": "ingress"}
FAILED = JSON | {"x-restate-error-source": "invocation", "x-restate-id": ID}
RESULT = JSON | {"x-restate-id": ID}
HTML = {"content-type": "text/html"}
PAGE = b"<html><body>Bad</body></html>"
TEXT = {"content-type": "text/plain; charset=utf-8"}
BARE = {"connection": "close", "content-length": "0", "date": "Sun, 22 Nov 2026 04:18:28 GMT"}


def error(message, code=None, source=None, **more):
    body = {"code": code, "message": message, "source": source} | more
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


def accepted(invocation_id=ID, status="Accepted", **more):
    return json.dumps({"invocationId": invocation_id, "status": status} | more).encode()


NO_SERVICE = "service 'Nope' not found, make sure to register the service before calling it."
NO_HANDLER = (
    "the service 'Wire' exists, but the handler 'nope' was not found, check that the handler exists in the latest"
)
WORKFLOW_KEY = (
    "cannot use the idempotency key with workflow handlers. The handler invocation will already be idempotent"
)
AGAIN = "the workflow method was already invoked"

#: What a server that names no source says with 400, word for word (1.6.2, and the last four 1.7.2).
UNSIGNED = [
    (said, Meaning.REFUSED, "a bad request")
    for said in [
        "input validation error: Content-type 'text/plain' does not match 'application/json'",
        "input validation error: Empty content-type",
        "input validation error: Empty body not allowed",
        "input validation error: Expected body and content-type to be empty, but wasn't",
        "bad header idempotency-key: ToStrError { _priv: () }",
        "bad delay query parameter, must be a ISO8601 duration: failed to parse input",
        "cannot use the delay query parameter with calls. The delay is supported only with sends",
        "bad scope value: value contains characters outside the allowed set [a-zA-Z0-9_.-]",
        "invalid limit-key: too many path components in the given limit-key (max 2)",
    ]
] + [
    ("scoped invocations require vqueues to be enabled", Meaning.REFUSED, "scopes that are switched off"),
    *(
        (said, Meaning.PATH_REFUSED, "a path of another form")
        for said in [
            "bad path, expected either /:service-name/:handler or /:object-name/:object-key/:handler",
            "bad path, expected /restate/call/:service/:handler, /restate/send/:service/:handler, or /restate/lookup",
            "bad path, cannot decode key: FromUtf8Error { bytes: [255], error: Utf8Error { valid_up_to: 0 } }",
        ]
    ),
]

#: What the ingress says about a request itself, on 1.7 (with a source) and on 1.6 (without).
REFUSALS = [
    (302, {"location": "https://elsewhere"}, b"", Meaning.MISCONFIGURED, "a redirect"),
    (308, HTML, PAGE, Meaning.MISCONFIGURED, "a redirect"),
    *((number, {}, b"", Meaning.MISCONFIGURED, "a redirect") for number in (301, 303, 307)),
    # A page is one by its type or by its look, whichever is honest.
    (409, HTML, b'{"message": "x"}', Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (409, INGRESS, PAGE, Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (401, {}, b"", Meaning.MISCONFIGURED, "not authorised"),
    (401, INGRESS, error("no", 401, "ingress"), Meaning.MISCONFIGURED, "not authorised"),
    (403, HTML, PAGE, Meaning.MISCONFIGURED, "not authorised"),
    (407, {}, b"", Meaning.MISCONFIGURED, "not authorised"),
    (405, INGRESS, error("method not allowed", 405, "ingress"), Meaning.MISCONFIGURED, "method not allowed"),
    (405, JSON, error("method not allowed"), Meaning.MISCONFIGURED, "method not allowed"),
    (413, TEXT, b"length limit exceeded", Meaning.REFUSED, "too large"),
    (413, INGRESS, error("too large", 413, "ingress"), Meaning.REFUSED, "too large"),
    (431, BARE, b"", Meaning.REFUSED, "too large"),
    (414, BARE, b"", Meaning.REFUSED, "too large"),
    (413, TEXT, b"Payload Too Large", Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (413, {}, b"", Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (414, BARE | {"server": "nginx"}, b"", Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (431, TEXT, b"too many headers", Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (413, HTML, PAGE, Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (400, HTML, PAGE, Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (404, TEXT, b"404 page not found", Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (404, {}, b"", Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (429, INGRESS, error("busy", 429, "ingress"), Meaning.UNAVAILABLE, "too busy"),
    (425, INGRESS, error("early", 425, "ingress"), Meaning.UNAVAILABLE, "too busy"),
    (
        400,
        INGRESS,
        error(WORKFLOW_KEY, 400, "ingress"),
        Meaning.WORKFLOW_KEY_REFUSED,
        "an idempotency key for a workflow's main handler",
    ),
    (
        400,
        JSON,
        error(WORKFLOW_KEY),
        Meaning.WORKFLOW_KEY_REFUSED,
        "an idempotency key for a workflow's main handler",
    ),
    (
        400,
        INGRESS,
        error("scoped invocations require vqueues to be enabled", 400, "ingress"),
        Meaning.REFUSED,
        "scopes that are switched off",
    ),
    (400, JSON, error("the invoked service is not public"), Meaning.REFUSED, "a service that is not public"),
    (
        400,
        INGRESS,
        error("bad path: /restate/send/Greeter/restate/send/Counter/k/add", 400, "ingress"),
        Meaning.PATH_REFUSED,
        "a path of another form",
    ),
    *((400, JSON, error(said), meaning, rule) for said, meaning, rule in UNSIGNED),
    # A proxy's, in the form that so many have: a row must not end for it.
    *(
        (status, JSON | headers, error(said, **more), Meaning.MISCONFIGURED, "a refusal that is not Restate's")
        for status, headers, said, more in [
            (400, {}, "Bad Request", {}),
            (400, {}, "bad header value", {}),
            (400, {}, "Invalid request: input validation error: body", {}),
            (400, {}, "this API is not public", {}),
            (400, {}, "input validation error: body", {"code": 400}),
            (400, {}, "input validation error: body", {"requestId": "1-2-3"}),
            (400, {"x-restate-error-source": "proxy"}, "input validation error: body", {}),
            (413, {}, "Request Too Long", {}),
            (415, {}, "Unsupported Media Type", {}),
            (431, {}, "Request Header Fields Too Large", {}),
        ]
    ),
    (415, INGRESS, error("content type", 415, "ingress"), Meaning.REFUSED, "a bad request"),
    (404, INGRESS, error(NO_SERVICE, 404, "ingress"), Meaning.UNKNOWN_TARGET, "an unknown service or handler"),
    (404, JSON, error(NO_HANDLER), Meaning.UNKNOWN_TARGET, "an unknown service or handler"),
    (404, INGRESS, error("not found", 404, "ingress"), Meaning.MISCONFIGURED, "a path that is not known"),
    (404, JSON, error("not found"), Meaning.MISCONFIGURED, "a path that is not known"),
    (
        500,
        JSON,
        error("internal routing error: record too large: 34604474 bytes exceeds"),
        Meaning.REFUSED,
        "a record over the log's limit",
    ),
]

#: What proves nothing for any request that may have run something.
UNKNOWNS = [
    (500, INGRESS, error("internal error", 500, "ingress")),
    (502, HTML, PAGE),
    (503, {}, b""),
    (504, TEXT, b"gateway timeout"),
    (408, {}, b""),
    (409, INGRESS, error("what", 409, "ingress")),
    (410, INGRESS, error("what", 410, "ingress")),
    (200, HTML, PAGE),
    (204, {}, b""),
    (304, {}, b""),
    (202, INGRESS, accepted()),
    (600, {}, b""),
    (0, {}, b""),
]

CLOSED = "nothing that is known"

SEND = [
    (202, RESULT, accepted(), Meaning.ACCEPTED, "accepted"),
    (202, RESULT, accepted(status="PreviouslyAccepted"), Meaning.ACCEPTED, "accepted"),
    (202, RESULT, accepted(executionTime="2026-11-22T04:36:12.274000000Z"), Meaning.ACCEPTED, "accepted"),
    *(
        (202, headers, body, Meaning.UNKNOWN, "an acceptance that does not hold together")
        for headers, body in [
            (RESULT, accepted(OTHER_ID)),
            (JSON, accepted()),
            (RESULT, b""),
            (RESULT, accepted()[:-4]),
            (RESULT, accepted(status="Maybe")),
            (RESULT, b'"text"'),
            (RESULT, b'{"status": "Accepted"}'),
            (JSON | {"x-restate-id": "<b>"}, accepted("<b>")),
            (HTML, PAGE),
            (INGRESS | RESULT, accepted()),
        ]
    ),
    (200, RESULT, b'"output"', Meaning.UNKNOWN, "a result where none can be"),
    (404, FAILED, error("x", 404, "invocation"), Meaning.UNKNOWN, "a result where none can be"),
    *REFUSALS,
    *((*case, Meaning.UNKNOWN, CLOSED) for case in UNKNOWNS if case[0] != 202),
]

HANDLER_CODES = [200, 202, 204, 302, 400, 401, 404, 405, 409, 413, 429, 470, 500, 503, 600, 999]

CALL = [
    (200, RESULT, b'"out"', Meaning.READY, "the output"),
    (200, {"x-restate-id": ID}, b"", Meaning.READY, "the output"),
    (200, RESULT, b'{"code": 500, "message": "an output that looks like one"}', Meaning.READY, "the output"),
    (409, FAILED, error(AGAIN, 409, "invocation"), Meaning.ALREADY_RUN, "a workflow that ran before"),
    (409, RESULT, error(AGAIN, 409), Meaning.ALREADY_RUN, "a workflow that ran before"),
    *(
        (code, FAILED, error("mine", code, "invocation"), Meaning.FAILED, "the handler's failure")
        for code in HANDLER_CODES
    ),
    # 1.6 names no source: an id says that it is a result.
    *((code, RESULT, error("mine", code), Meaning.FAILED, "the handler's failure") for code in HANDLER_CODES[1:]),
    (500, FAILED, error("mine", 65000, "invocation"), Meaning.FAILED, "the handler's failure"),
    (204, FAILED, b"", Meaning.FAILED, "the handler's failure"),
    *REFUSALS,
    *((*case, Meaning.UNKNOWN, CLOSED) for case in UNKNOWNS),
    (500, {}, b"", Meaning.UNREADABLE, "a failure that HTTP can't carry"),
    (429, {}, b"", Meaning.UNAVAILABLE, "too busy"),
    (429, HTML, PAGE, Meaning.UNAVAILABLE, "too busy"),
    (425, {}, b"", Meaning.UNAVAILABLE, "too busy"),
]

READ_REFUSALS = [
    (302, {"location": "/login"}, b"", Meaning.MISCONFIGURED, "a redirect"),
    (401, {}, b"", Meaning.MISCONFIGURED, "not authorised"),
    (405, JSON, error("method not allowed"), Meaning.MISCONFIGURED, "method not allowed"),
    (404, HTML, PAGE, Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (429, INGRESS, error("busy", 429, "ingress"), Meaning.UNAVAILABLE, "not now"),
    (500, INGRESS, error("cannot read body", 500, "ingress"), Meaning.UNAVAILABLE, "not now"),
    (503, HTML, PAGE, Meaning.UNAVAILABLE, "not now"),
    (408, {}, b"", Meaning.UNAVAILABLE, "not now"),
    (400, INGRESS, error("bad invocation id", 400, "ingress"), Meaning.REFUSED, "a bad request"),
    (400, JSON, error("bad invocation id 'xyz': bad format"), Meaning.REFUSED, "a bad request"),
    (400, JSON, error("Bad Request"), Meaning.MISCONFIGURED, "a refusal that is not Restate's"),
]

NO_INVOCATION = [
    (404, INGRESS, error("invocation not found", 404, "ingress"), Meaning.NOT_FOUND, "an unknown invocation"),
    (404, JSON, error("invocation not found"), Meaning.NOT_FOUND, "an unknown invocation"),
]

NOT_YET = "the invocation exists but has not completed yet"

OUTPUT = [
    (200, RESULT | {"idempotency-expires": "2026-11-23T02:36:12.289+00:00"}, b'"out"', Meaning.READY, "the output"),
    *(
        (code, FAILED, error("mine", code, "invocation"), Meaning.FAILED, "the invocation's failure")
        for code in HANDLER_CODES
    ),
    *((code, RESULT, error("mine", code), Meaning.FAILED, "the invocation's failure") for code in HANDLER_CODES[1:]),
    (470, INGRESS, error(NOT_YET, 470, "ingress"), Meaning.NOT_READY, "not completed"),
    (470, JSON, error(NOT_YET), Meaning.NOT_READY, "not completed"),
    *NO_INVOCATION,
    (500, {}, b"", Meaning.UNREADABLE, "a failure that HTTP can't carry"),
    *READ_REFUSALS,
    (404, JSON, error("not found"), Meaning.MISCONFIGURED, "a path that is not known"),
    (404, INGRESS, error("not found", 404, "ingress"), Meaning.MISCONFIGURED, "a path that is not known"),
    (470, HTML, PAGE, Meaning.MISCONFIGURED, "a client error that is not Restate's"),
    (200, HTML, PAGE, Meaning.UNKNOWN, CLOSED),
    (200, JSON, b'"out"', Meaning.UNKNOWN, CLOSED),
    (204, {}, b"", Meaning.UNKNOWN, CLOSED),
    (600, {}, b"", Meaning.UNKNOWN, CLOSED),
]

ATTACH_404 = "an unknown invocation, as attach says it"
KEPT = {"idempotency-expires": "2026-11-23T02:36:12.289+00:00"}

EXAMPLES = {
    "send": SEND,
    "call": CALL,
    "output": OUTPUT,
    "attach": [
        (404, FAILED, error("not found", 404, "invocation"), Meaning.NOT_FOUND, ATTACH_404),
        (404, RESULT, error("not found", 404), Meaning.NOT_FOUND, ATTACH_404),
        (404, FAILED | KEPT, error("not found", 404, "invocation"), Meaning.FAILED, "the invocation's failure"),
        *OUTPUT,
    ],
    "status": [
        (200, {"x-restate-id": ID}, b'{"stage":"completed","error":null}', Meaning.READY, "the stage"),
        *NO_INVOCATION,
        *READ_REFUSALS,
        (404, INGRESS, error("not found", 404, "ingress"), Meaning.NOT_OFFERED, "no such path"),
        (200, JSON, b'{"stage":"unheard of"}', Meaning.UNKNOWN, CLOSED),
        (200, HTML, PAGE, Meaning.UNKNOWN, CLOSED),
    ],
    "lookup": [
        (200, JSON, json.dumps({"invocationId": ID}).encode(), Meaning.READY, "the id"),
        *READ_REFUSALS,
        (404, JSON, error("not found"), Meaning.NOT_OFFERED, "no such path"),
        (200, JSON, b'{"invocationId":"x"}', Meaning.UNKNOWN, CLOSED),
    ],
    "health": [
        (200, JSON, b'{"services":["A"]}', Meaning.READY, "healthy"),
        *READ_REFUSALS,
        (404, JSON, error("not found"), Meaning.MISCONFIGURED, "a path that is not known"),
        (200, HTML, PAGE, Meaning.UNKNOWN, CLOSED),
    ],
    "awakeable": [
        (202, {}, b"", Meaning.DONE, "taken"),
        (202, HTML, PAGE, Meaning.UNKNOWN, CLOSED),
        (401, {}, b"", Meaning.MISCONFIGURED, "not authorised"),
        (302, {}, b"", Meaning.MISCONFIGURED, "a redirect"),
        (405, {}, b"", Meaning.MISCONFIGURED, "method not allowed"),
        (404, HTML, PAGE, Meaning.MISCONFIGURED, "a client error that is not Restate's"),
        (429, INGRESS, error("busy"), Meaning.UNAVAILABLE, "too busy"),
        (400, JSON, error("bad awakeable id 'xx': bad format"), Meaning.REFUSED, "a bad request"),
        (400, JSON, error("Bad Request"), Meaning.MISCONFIGURED, "a refusal that is not Restate's"),
        (413, TEXT, b"length limit exceeded", Meaning.REFUSED, "too large"),
        (404, JSON, error("not found"), Meaning.MISCONFIGURED, "a path that is not known"),
        (200, HTML, PAGE, Meaning.UNKNOWN, CLOSED),
        (500, INGRESS, error("x"), Meaning.UNKNOWN, CLOSED),
    ],
    "admin": [
        (202, {}, b"", Meaning.APPENDED, "taken, not carried out yet"),
        (202, HTML, PAGE, Meaning.UNKNOWN, CLOSED),
        (200, JSON, b"{}", Meaning.DONE, "carried out"),
        (200, {}, b"", Meaning.DONE, "carried out"),
        (200, HTML, PAGE, Meaning.UNKNOWN, CLOSED),
        (200, TEXT, b"welcome", Meaning.UNKNOWN, CLOSED),
        (302, {}, b"", Meaning.MISCONFIGURED, "a redirect"),
        (401, {}, b"", Meaning.MISCONFIGURED, "not authorised"),
        (405, {"allow": "GET"}, b"", Meaning.MISCONFIGURED, "method not allowed"),
        (404, {}, b"", Meaning.NOT_OFFERED, "no such operation"),
        (501, {}, b"", Meaning.NOT_OFFERED, "not implemented"),
        (400, HTML, PAGE, Meaning.MISCONFIGURED, "a client error that is not Restate's"),
        (429, JSON, error("busy"), Meaning.UNAVAILABLE, "too busy"),
        (429, HTML, PAGE, Meaning.UNAVAILABLE, "too busy"),
        (422, TEXT, b"Failed to deserialize the JSON body into ...", Meaning.REFUSED, "a malformed request"),
        (400, TEXT, b"Failed to parse the request body as JSON: ...", Meaning.REFUSED, "a malformed request"),
        (400, TEXT, b"Bad request", Meaning.MISCONFIGURED, "a client error that is not Restate's"),
        (404, JSON, error("The requested service 'x' does not exist"), Meaning.NOT_FOUND, "unknown"),
        (409, JSON, error("already completed"), Meaning.REFUSED, "refused"),
        (425, JSON, error("not started"), Meaning.REFUSED, "refused"),
        (
            500,
            JSON,
            error("error when calling", restate_code="META0003"),
            Meaning.REFUSED,
            "refused, with an error of the server's own catalogue",
        ),
        (
            500,
            JSON,
            error("Datafusion error: Schema error"),
            Meaning.REFUSED,
            "refused, with an error of the server's own catalogue",
        ),
        (500, JSON, error("internal"), Meaning.UNKNOWN, CLOSED),
        (503, JSON, error("no leader"), Meaning.UNKNOWN, CLOSED),
    ],
}


@pytest.mark.parametrize(
    ("verb", "case"),
    [(verb, case) for verb, cases in EXAMPLES.items() for case in cases],
    ids=lambda each: str(each)[:70],
)
def test_an_answer_means(verb, case):
    status, headers, body, meaning, rule = case
    outcome = classify(verb, status, headers, body)
    assert (outcome.meaning, outcome.rule) == (meaning, rule)
    assert outcome.reason.endswith((".", "?"))
    assert outcome.status == status


@pytest.mark.parametrize("verb", TABLES)
def test_every_row_has_an_example(verb):
    shown = {rule for *_, rule in EXAMPLES[verb]}
    assert [row.name for row in TABLES[verb] if row.name not in shown] == []


def test_what_an_acceptance_tells():
    outcome = classify("send", 202, RESULT, accepted(executionTime="2026-11-22T04:36:12.274000000Z"))
    assert outcome.invocation_id == ID
    assert not outcome.previously_accepted
    assert outcome.execution_time is not None
    assert outcome.execution_time.isoformat() == "2026-11-22T04:36:12.274000+00:00"
    assert classify("send", 202, RESULT, accepted(status="PreviouslyAccepted")).previously_accepted


def test_what_a_failure_tells():
    body = error("a\x00b", 65000, "invocation", metadata={"k": "v"})
    outcome = classify("output", 500, FAILED, body)
    assert (outcome.code, outcome.message, outcome.metadata) == (65000, "a\x00b", {"k": "v"})
    empty = classify("call", 204, FAILED, b"")
    assert (empty.code, empty.message) == (204, "")
    odd = classify("output", 500, FAILED, b'{"code": true, "message": 5, "metadata": []}')
    assert (odd.code, odd.message, odd.metadata) == (500, "", {})


FORGED = "bad\n2026-11-22 ERROR forged\x1b[31m\u202e\x00é " + "x" * 200_000


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_servers_words_forge_no_line_and_fill_no_screen(status):
    said = describe(classify("send", status, INGRESS, error(FORGED, status, "ingress")))
    assert said.isprintable()
    assert r"(bad\n2026-11-22 ERROR forged\x1b[31m\u202e\x00é xxx" in said
    assert len(said) < 800
    # In a body that is no JSON, too.
    assert describe(classify("send", status, TEXT, FORGED.encode())).isprintable()


def test_a_handlers_own_message_stays_as_it_is():
    """It is data: who shows it escapes it."""
    assert classify("output", 500, FAILED, error(FORGED, 500, "invocation")).message == FORGED


def test_header_names_count_in_any_case():
    assert classify("send", 202, {"X-Restate-Id": ID}, accepted()).meaning is Meaning.ACCEPTED


def test_a_404_about_another_service_is_a_wrong_path():
    """A prefix that no proxy takes off turns the path into another service's: that is no reason to refuse a row."""
    body = error("service 'prefix' not found, make sure to register the service before calling it.", 404, "ingress")
    assert classify("send", 404, INGRESS, body, service="Greeter").meaning is Meaning.MISCONFIGURED
    assert classify("send", 404, INGRESS, body, service="prefix").meaning is Meaning.UNKNOWN_TARGET
    assert classify("send", 404, JSON, error(NO_HANDLER), service="Wire").meaning is Meaning.UNKNOWN_TARGET
    assert classify("send", 404, JSON, error(NO_HANDLER), service="Else").meaning is Meaning.MISCONFIGURED
    encoded = error("service 'a%20b' not found, make sure to register the service before calling it.", 404, "ingress")
    assert classify("send", 404, INGRESS, encoded, service="a b").meaning is Meaning.UNKNOWN_TARGET


@given(
    st.sampled_from(sorted(TABLES)),
    st.integers(0, 1100),
    st.dictionaries(
        st.sampled_from(["content-type", "x-restate-error-source", "location", "retry-after"]), st.text(max_size=30)
    ),
    st.binary(max_size=60) | st.text(max_size=30).map(error),
)
@settings(max_examples=300, deadline=None)
def test_nothing_is_a_success_without_restates_own_mark(verb, status, headers, body):
    """No answer without an invocation's id is an acceptance, an output or a failure; and none makes it raise."""
    outcome = classify(verb, status, headers, body)
    assert isinstance(outcome, Outcome)
    if verb in {"send", "call", "output", "attach"} and headers.get("x-restate-error-source") != "invocation":
        assert outcome.meaning not in {Meaning.ACCEPTED, Meaning.READY, Meaning.FAILED}


@given(st.integers(100, 999), st.text(max_size=40), st.sampled_from(["call", "output"]))
@settings(max_examples=200, deadline=None)
def test_the_source_counts_before_the_number(status, message, verb):
    outcome = classify(verb, status, FAILED, error(message, status, "invocation"))
    if message == AGAIN:
        return
    assert outcome.meaning is Meaning.FAILED
    assert (outcome.code, outcome.message) == (status, message)


@pytest.mark.parametrize(
    ("code", "message", "requested", "status"),
    [
        (409, "cancelled", False, "cancelled"),
        (409, "Cancelled", False, "cancelled"),
        (409, "CANCELED", False, "cancelled"),
        (409, " canceled ", False, "cancelled"),
        (409, "killed", False, "killed"),
        (409, "Killed", True, "killed"),
        (409, "out of stock", False, "failed"),
        (409, "the order was cancelled by hand", False, "failed"),
        (409, "out of stock", True, "cancelled"),
        (409, "", False, "failed"),
        (500, "cancelled", True, "failed"),
        (None, "cancelled", False, "failed"),
    ],
)
def test_final_status(code, message, requested, status):
    assert final_status(code, message, cancel_requested=requested) == status


@pytest.mark.parametrize("value", [None, "", "yesterday", "2026-11-22T04:36:12", 5, "2026-13-01T00:00:00Z"])
def test_a_time_that_can_not_be_read_is_none(value):
    assert parse_time(value) is None
