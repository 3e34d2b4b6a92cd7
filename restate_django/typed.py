"""Typed targets: services, objects and workflows whose handlers are attributes, and the base of generated ones.

``VirtualObject("Cart")["cart-1"].add.send(item)`` is ``send("Cart", "add", item, key="cart-1")``. ``restate_codegen``
writes a class for each service, whose handlers know what they take and give. Only the client is imported here, and the
verbs when a handler is used: a module of targets can be imported before the app registry is ready, by a ``models.py``
too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypedDict, TypeVar, Unpack, overload

from asgiref.sync import sync_to_async

from restate_django.client import NO_PAYLOAD, NoPayload, OutputState
from restate_django.client.targets import service_name, validate_handler, validate_key
from restate_django.exceptions import InvalidRequest, OutputInvalid

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from django.db import models

    from restate_django.client import Output
    from restate_django.dispatch import Outgoing
    from restate_django.models import Invocation

__all__ = [
    "Handler",
    "KnownOutput",
    "MainHandler",
    "NoPayload",
    "ObjectTarget",
    "Service",
    "ServiceTarget",
    "VirtualObject",
    "Workflow",
    "WorkflowTarget",
]

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


# ---------------------------------------------------------------- what goes along with a payload


class _Options(TypedDict, total=False):
    """What every verb takes. Their meaning stands at ``restate_django.send``."""

    idempotency_key: str | None
    requested_by: Any
    related_to: models.Model | None
    headers: Mapping[str, str] | None
    content_type: str | None
    scope: str | None
    limit_key: str | None


class OutgoingOptions(_Options, total=False):
    """What ``outgoing`` takes besides the payload."""

    delay: dt.timedelta | None
    eta: dt.datetime | None


class SendOptions(OutgoingOptions, total=False):
    """What ``send`` takes besides the payload."""

    connection: str
    using: str | None


class CallOptions(_Options, total=False):
    """What ``call`` takes besides the payload."""

    timeout: float | None
    connection: str
    using: str | None


class ReadOptions(TypedDict, total=False):
    """What ``output`` takes; ``attach`` takes a ``timeout`` too."""

    scope: str | None
    connection: str
    using: str | None


class AttachOptions(ReadOptions, total=False):
    """What ``attach`` takes."""

    timeout: float | None


# ---------------------------------------------------------------- a handler


@dataclass(frozen=True, repr=False)
class Handler(Generic[In_contra, Out_co]):
    """A handler to send to or to call: an attribute of a target.

    Attributes:
        service: The name of its service, object or workflow.
        name: Its own name.
        key: The object's or workflow's key, None for a service.
        returns: The type that an output is made into (by pydantic); None leaves it as it was decoded from JSON.
        content_type: The payload's type, where it is not JSON.
    """

    service: str
    name: str
    key: str | None = field(default=None, kw_only=True)
    returns: Any = field(default=None, kw_only=True)
    content_type: str | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'/'.join(part for part in (self.service, self.key, self.name) if part)}>"

    @overload
    def send(self: Handler[NoPayload, Any], payload: NoPayload = ..., **options: Unpack[SendOptions]) -> Invocation: ...
    @overload
    def send(self, payload: In_contra, **options: Unpack[SendOptions]) -> Invocation: ...
    def send(self, payload: Any = NO_PAYLOAD, **options: Unpack[SendOptions]) -> Invocation:
        """Hand an invocation to Restate, as ``restate_django.send`` does.

        Args:
            payload: What the handler takes; nothing for one without input.
            options: ``delay``, ``eta``, ``idempotency_key``, ``requested_by``, ``related_to``, ``headers``,
                ``content_type``, ``scope``, ``limit_key``, ``connection``, ``using``.

        Raises:
            InvalidRequest: It could never be served. Nothing was written.
            IdempotencyConflict: The key is bound to another payload.
        """
        from restate_django import dispatch

        return dispatch.send(self.service, self.name, payload, **self._with_key(options))

    @overload
    async def asend(
        self: Handler[NoPayload, Any], payload: NoPayload = ..., **options: Unpack[SendOptions]
    ) -> Invocation: ...
    @overload
    async def asend(self, payload: In_contra, **options: Unpack[SendOptions]) -> Invocation: ...
    async def asend(self, payload: Any = NO_PAYLOAD, **options: Unpack[SendOptions]) -> Invocation:
        """Do what :meth:`send` does, from a coroutine."""
        from restate_django import dispatch

        return await dispatch.asend(self.service, self.name, payload, **self._with_key(options))

    @overload
    def call(self: Handler[NoPayload, Any], payload: NoPayload = ..., **options: Unpack[CallOptions]) -> Out_co: ...
    @overload
    def call(self, payload: In_contra, **options: Unpack[CallOptions]) -> Out_co: ...
    def call(self, payload: Any = NO_PAYLOAD, **options: Unpack[CallOptions]) -> Any:
        """Invoke the handler and wait for its output, as ``restate_django.call`` does.

        Args:
            payload: What the handler takes; nothing for one without input.
            options: ``timeout`` in seconds, and ``idempotency_key``, ``requested_by``, ``related_to``, ``headers``,
                ``content_type``, ``scope``, ``limit_key``, ``connection``, ``using``.

        Raises:
            OutputInvalid: It ran, and its output does not fit the type that the target says.
            RestateError: The rest as ``restate_django.call`` does.
        """
        from restate_django import dispatch

        return self.parse_output(dispatch.call(self.service, self.name, payload, **self._with_key(options)))

    @overload
    async def acall(
        self: Handler[NoPayload, Any], payload: NoPayload = ..., **options: Unpack[CallOptions]
    ) -> Out_co: ...
    @overload
    async def acall(self, payload: In_contra, **options: Unpack[CallOptions]) -> Out_co: ...
    async def acall(self, payload: Any = NO_PAYLOAD, **options: Unpack[CallOptions]) -> Any:
        """Do what :meth:`call` does, from a coroutine."""
        from restate_django import dispatch

        return self.parse_output(await dispatch.acall(self.service, self.name, payload, **self._with_key(options)))

    @overload
    def outgoing(
        self: Handler[NoPayload, Any], payload: NoPayload = ..., **options: Unpack[OutgoingOptions]
    ) -> Outgoing: ...
    @overload
    def outgoing(self, payload: In_contra, **options: Unpack[OutgoingOptions]) -> Outgoing: ...
    def outgoing(self, payload: Any = NO_PAYLOAD, **options: Unpack[OutgoingOptions]) -> Outgoing:
        """Return what ``send_many`` takes.

        Args:
            payload: What the handler takes; nothing for one without input.
            options: ``delay``, ``eta``, ``idempotency_key``, ``requested_by``, ``related_to``, ``headers``,
                ``content_type``, ``scope``, ``limit_key``.
        """
        from restate_django.dispatch import Outgoing

        return Outgoing(self.service, self.name, payload, **self._with_key(options))

    def parse_output(self, value: Any) -> Out_co:
        """Return an output, a row's ``output_value`` say, as the type that the target says.

        Args:
            value: The output as it was decoded from JSON.

        Raises:
            OutputInvalid: It does not fit the type.
        """
        if self.returns is None:
            parsed: Out_co = value
            return parsed
        try:
            parsed = _adapter(self.returns).validate_python(value)
        except _validation_error() as error:
            # Without the error itself: it shows values of the output, and a traceback ends in a log.
            raise OutputInvalid(
                f"It ran, and what it gave does not fit {self.returns!r} ({_first_fault(error)}): the targets are "
                "older, or newer, than the handler. Write them anew with restate_codegen.",
                value=value,
                target=f"{self.service}/{self.name}",
            ) from None
        return parsed

    def _with_key(self, options: Mapping[str, Any]) -> dict[str, Any]:
        if "key" in options:
            if self.key is None:
                raise InvalidRequest(f"{self!r} is a service's: it has no key. Leave out key={options['key']!r}.")
            raise InvalidRequest(
                f"{self!r} has its key already. Another one is chosen where the target is made, not by key=."
            )
        given = dict(options, key=self.key)
        if self.content_type is not None:
            given.setdefault("content_type", self.content_type)
        return given


@dataclass(frozen=True, repr=False)
class MainHandler(Handler[In_contra, Out_co]):
    """A workflow's main handler, whose output can be waited for by the workflow's key: no row is needed."""

    def attach(self, **options: Unpack[AttachOptions]) -> Out_co:
        """Wait for the workflow's end and return its output.

        Args:
            options: ``timeout`` in seconds (the connection's ``CALL_TIMEOUT`` by default), ``scope``, ``connection``,
                ``using``.

        Raises:
            InvocationFailed: It ended in a failure.
            CallTimeout: Waiting ended first. The workflow goes on.
            NotFound: Restate does not know it, and no row here does.
            InvalidRequest: This is not the workflow's main handler.
            OutputInvalid: Its output does not fit the type that the target says.
        """
        from restate_django import workflows

        return self.parse_output(workflows.attach(self.service, self._chosen_key(), self.name, **options))

    async def aattach(self, **options: Unpack[AttachOptions]) -> Out_co:
        """Do what :meth:`attach` does, from a coroutine."""
        return await sync_to_async(self.attach)(**options)

    def output(self, **options: Unpack[ReadOptions]) -> KnownOutput[Out_co]:
        """Read what is known of the workflow's output now, without waiting for it.

        Args:
            options: ``scope``, ``connection``, ``using``.

        Raises:
            InvalidRequest: This is not the workflow's main handler.
            RequestError: Restate can't be read now.
        """
        from restate_django import workflows

        return KnownOutput(workflows.output(self.service, self._chosen_key(), self.name, **options), self)

    async def aoutput(self, **options: Unpack[ReadOptions]) -> KnownOutput[Out_co]:
        """Do what :meth:`output` does, from a coroutine."""
        return await sync_to_async(self.output)(**options)

    def _chosen_key(self) -> str:
        if self.key is None:
            raise InvalidRequest(f"{self!r} has no key: choose the workflow first.")
        return self.key


@dataclass(frozen=True)
class KnownOutput(Generic[Out_co]):
    """What is known of a workflow's output at a moment.

    Attributes:
        raw: What Restate (or the row that holds the workflow's key) said.
        handler: The handler it is of.
    """

    raw: Output
    handler: MainHandler[Any, Out_co]

    @property
    def state(self) -> OutputState:
        """Ready, failed, not ready, or unknown to Restate and to us."""
        return self.raw.state

    @property
    def ready(self) -> bool:
        """Whether there is a :attr:`value`."""
        return self.raw.state is OutputState.READY

    @property
    def value(self) -> Out_co:
        """The output.

        Raises:
            InvocationFailed: The workflow failed.
            CallTimeout: It has not ended yet.
            NotFound: Nobody knows it.
            OutputInvalid: It does not fit the type that the target says.
        """
        return self.handler.parse_output(self.raw.result())


def _first_fault(error: Any) -> str:
    """Return where an output does not fit, and why, by the first of pydantic's findings and without any value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'as a whole'}: {first['msg']}"


@cache
def _validation_error() -> type[ValueError]:
    from pydantic import ValidationError

    return ValidationError


@cache
def _adapter(wanted: Any) -> Any:
    """Return what makes a decoded output into a type. Only targets of pydantic's style come here."""
    from pydantic import TypeAdapter

    return TypeAdapter(wanted)


# ---------------------------------------------------------------- targets by name


class _Named:
    """A target by its name. Any attribute is a handler; whether there is such a one, Restate says."""

    # Here as well, for a copy is asked for them before it has its own.
    _service: str = ""
    _key: str | None = None

    def __init__(self, service: Any) -> None:
        self._service = service_name(service)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._service!r}){'' if self._key is None else f'[{self._key!r}]'}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Named):
            return NotImplemented
        return (type(self), self._service, self._key) == (type(other), other._service, other._key)

    def __hash__(self) -> int:
        return hash((type(self), self._service, self._key))

    def _checked(self, name: str) -> str:
        """Return a handler's name, or say why an attribute is none."""
        if name.startswith("_"):
            # Python and its tools ask objects for such names: they must not get a handler.
            raise AttributeError(
                f"{self!r} has no attribute {name!r}: a name that begins with an underscore is no handler here. "
                f'Use .handler("{name}") for one that is named so.',
                name=name,
                obj=self,
            )
        return validate_handler(name)


class Service(_Named):
    """A service by its name, with its handlers as attributes: ``Service("Greeter").greet.send({"name": "Mary"})``.

    Args:
        service: Its name, or the official SDK's object for it.
    """

    if not TYPE_CHECKING:  # so that a type checker refuses a key as well

        def __getitem__(self, key: object) -> NoReturn:
            """Say that a service has no keys."""
            raise InvalidRequest(
                f"{self._service!r} is a Service here, and has no keys: leave out [{key!r}], or use VirtualObject or "
                "Workflow."
            )

    def __getattr__(self, name: str) -> Handler[Any, Any]:
        """Return a handler."""
        return self.handler(self._checked(name))

    def handler(self, name: str) -> Handler[Any, Any]:
        """Return a handler whose name is no attribute (one that is named ``handler``, say)."""
        return Handler(self._service, validate_handler(name))


class _Keyed(_Named):
    """A target that has a key before it has handlers."""

    def __getitem__(self, key: str) -> Any:
        """Choose one by its key."""
        chosen = type(self)(self._service)
        chosen._key = validate_key(key)
        return chosen

    def _required_key(self, name: str) -> str:
        if self._key is None:
            raise InvalidRequest(
                f"{self!r} has no key yet: choose one before its handler, {self!r}[key].{name}, as each key has a "
                "state of its own."
            )
        return self._key


class VirtualObject(_Keyed):
    """A virtual object by its name and key: ``VirtualObject("Cart")["cart-1"].add.send(item)``.

    Args:
        service: Its name, or the official SDK's object for it.
    """

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> VirtualObject: ...

    def __getattr__(self, name: str) -> Handler[Any, Any]:
        """Return a handler of the object."""
        return self.handler(self._checked(name))

    def handler(self, name: str) -> Handler[Any, Any]:
        """Return a handler whose name is no attribute."""
        return Handler(self._service, validate_handler(name), key=self._required_key(name))


class Workflow(_Keyed):
    """A workflow by its name and key: ``Workflow("Signup")["mary"].run.send({"email": email})``.

    Args:
        service: Its name, or the official SDK's object for it.
    """

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> Workflow: ...

    def __getattr__(self, name: str) -> MainHandler[Any, Any]:
        """Return a handler of the workflow. Its ``attach`` and ``output`` are for the main one."""
        return self.handler(self._checked(name))

    def handler(self, name: str) -> MainHandler[Any, Any]:
        """Return a handler whose name is no attribute."""
        return MainHandler(self._service, validate_handler(name), key=self._required_key(name))


# ---------------------------------------------------------------- the base of generated targets


class _Target:
    """A target whose handlers are written down, as ``restate_codegen`` does it."""

    _service: ClassVar[str]
    _key: str | None = None

    def __init_subclass__(cls, *, service: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if service is not None:
            cls._service = service_name(service)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self._key is None else repr(self._key)})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), self._key))

    def _handler(self, name: str, returns: Any = None, *, content_type: str | None = None) -> Handler[Any, Any]:
        return Handler(self._service, name, key=self._key, returns=returns, content_type=content_type)


class ServiceTarget(_Target):
    """The base of a generated service: ``class Greeter(ServiceTarget, service="Greeter")``."""


class ObjectTarget(_Target):
    """The base of a generated virtual object.

    Args:
        key: The object's key.
    """

    def __init__(self, key: str) -> None:
        self._key = validate_key(key)


class WorkflowTarget(ObjectTarget):
    """The base of a generated workflow.

    Args:
        key: The workflow's key.
    """

    def _main_handler(
        self, name: str, returns: Any = None, *, content_type: str | None = None
    ) -> MainHandler[Any, Any]:
        return MainHandler(self._service, name, key=self._key, returns=returns, content_type=content_type)
