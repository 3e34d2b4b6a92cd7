"""Every error this package raises, in one tree that imports nothing of the package.

Each class is also what a caller would catch by habit (a ``requests`` error, ``TimeoutError``, ``ValueError``,
``LookupError``), so code written for bare ``requests`` keeps working. Errors of configuration stand outside the tree:
they are Django's ``ImproperlyConfigured``, and no retry helps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Mapping

    from restate_django.models import Invocation


class RestateError(Exception):
    """The root of the tree.

    Attributes:
        message: What happened and what to do next, without any secret.
        status: The HTTP status of the answer, where there was one.
        code: The code in the answer's body, where it has one (a handler picks its own).
        metadata: What a handler attached to its terminal error.
        target: What the request was about, in words (``Greeter/greet`` or an invocation id).
        retryable: The same request may be sent again, later, and may then succeed.
        may_have_run: The handler may have run although this was raised. False means that nothing ran, for certain.
    """

    retryable = False
    may_have_run = False

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        target: str = "",
    ) -> None:
        # BaseException.__init__ by name: requests' and OSError's constructors take other arguments.
        Exception.__init__(self, message)
        self.message = message
        self.status = status
        self.code = code
        self.metadata = dict(metadata) if metadata else {}
        self.target = target

    def __str__(self) -> str:
        return f"{self.target}: {self.message}" if self.target else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, status={self.status}, code={self.code})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self._state()))

    def _state(self) -> dict[str, Any]:
        """Return what travels with a pickled error (between Celery workers, say): plain values only."""
        state = dict(self.__dict__)
        # requests' own attributes can hold the request's headers, and those a token.
        state.pop("request", None)
        state.pop("response", None)
        return state


def _rebuild(cls: type[RestateError], args: tuple[Any, ...], state: dict[str, Any]) -> RestateError:
    """Make a pickled error again, whatever its constructor takes."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


# ---------------------------------------------------------------- what a caller asked for was wrong


class InvalidRequest(RestateError, ValueError):
    """A request that could never be served, refused before anything was recorded or sent. Names the value."""


class PayloadInvalid(InvalidRequest):
    """The payload does not fit the JSON schema that the handler's deployment gave. Nothing was recorded or sent.

    Attributes:
        path: Where: ``$`` is the payload itself, ``$.lines[0].quantity`` a value within it.
        reason: What is wrong there. It shows no value of the payload.
    """

    def __init__(self, message: str = "", *, path: str = "$", reason: str = "", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.path = path
        self.reason = reason


class NotSupported(RestateError, NotImplementedError):
    """This server, or this connection's settings, do not offer the operation."""


class IdempotencyConflict(RestateError, ValueError):
    """The idempotency key is bound to an invocation of the same target with another payload.

    Attributes:
        invocation: The row that holds the key.
    """

    def __init__(self, message: str = "", *, invocation: Invocation | None = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.invocation = invocation


# ---------------------------------------------------------------- the talk with the server went wrong


class RequestError(RestateError, requests.RequestException):
    """An answer, or the lack of one, that is no result. Its subclasses say what follows from it."""

    # requests.RequestException gives these on instances only; a pickled error has lost them.
    request = None
    response = None
    #: Seconds that the answer's ``Retry-After`` asks to wait, None where it asks for nothing.
    retry_after: float | None = None


class Refused(RequestError, ValueError):
    """The server refused this very request for good: nothing ran, and sending it again changes nothing."""


class WorkflowKeyRefused(Refused):
    """The server refused an idempotency key because the target is a workflow's main handler. Nothing ran."""


class PathRefused(Refused):
    """A key for a service, or none for an object or a workflow. Nothing ran.

    A URL whose prefix is a service's name is answered like this as well: a row is told apart by the ingress's health.
    """


class WorkflowAlreadyRun(Refused):
    """A call of a workflow that ran before, under the same key. Nothing ran now: attach to it for its result.

    Attributes:
        invocation_id: The run that has the key.
    """

    invocation_id: str | None = None


class Unavailable(RequestError, requests.ConnectionError):
    """Nothing ran. The server can't be reached, or does not take requests now; later it may."""

    retryable = True


class Misconfigured(Unavailable):
    """Nothing ran, and the answer looks like a wrong setting: a token, a URL, a path prefix, a path style, a proxy."""


class UnknownTarget(Unavailable, LookupError):
    """Nothing ran: the server knows no such service or handler (yet; a deployment may be about to register)."""


class OutcomeUnknown(RequestError):
    """The handler may have run: the connection broke, or the answer says nothing that is known.

    Attributes:
        invocation: The row whose outcome is unknown, when raised by ``call``. It is resolved by reading alone.
    """

    retryable = True
    may_have_run = True

    def __init__(self, message: str = "", *, invocation: Invocation | None = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.invocation = invocation


class RequestTimeout(OutcomeUnknown, requests.Timeout, TimeoutError):
    """No whole answer came within the deadline. What was sent may have run."""


class NotFound(RequestError, LookupError):
    """The server does not know what was asked for: an invocation that is purged, expired or never was; a service."""


class AdminRefused(RequestError):
    """The Admin API understood the request and refused it (409, 410, 422, 425, ...).

    Attributes:
        restate_code: The server's own code for it, such as ``META0003``, where it gives one.
    """

    restate_code: str | None = None


class ResponseTooLarge(RequestError):
    """The answer is larger than the limit, and was not read to its end.

    Attributes:
        size: The bytes that it has, as far as is known: more than the limit in any case.
        invocation_id: The invocation whose output it is, None where the answer names none.
    """

    size: int = 0
    invocation_id: str | None = None


# ---------------------------------------------------------------- what became of an invocation


class InvocationFailed(RestateError):
    """The invocation ended in a failure: its handler's terminal error, or a cancellation or kill.

    Attributes:
        code: What the handler chose (any number), or 409 for cancelled and killed ones.
        message: The handler's message: untrusted text.
        metadata: What the handler attached.
        invocation: The row, when raised by ``call`` or ``attach`` on a row.
    """

    may_have_run = True

    def __init__(
        self,
        code: int | None = None,
        message: str = "",
        metadata: Mapping[str, Any] | None = None,
        *,
        invocation: Invocation | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(message, code=code, metadata=metadata, **kwargs)
        self.invocation = invocation

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"


class OutputInvalid(RestateError, ValueError):
    """The handler ran, and its output does not fit the type that its typed target says.

    Attributes:
        value: The output as it came.
    """

    may_have_run = True

    def __init__(self, message: str = "", *, value: Any = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.value = value


class CallTimeout(RestateError, TimeoutError):
    """Waiting ended before the invocation did. It goes on, and its row is polled like any other.

    Attributes:
        invocation: The row to look at later.
    """

    may_have_run = True

    def __init__(self, message: str = "", *, invocation: Invocation | None = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.invocation = invocation


class OperationRefused(RestateError):
    """An operation (cancel, kill, ...) was not done.

    Attributes:
        reason: Why, as a sentence for a person.
        status: The HTTP status of the server's refusal, None where it never came to a request.
    """

    def __init__(self, reason: str = "", status: int | None = None, **kwargs: Any) -> None:
        super().__init__(str(reason), status=status, **kwargs)
        self.reason = reason
