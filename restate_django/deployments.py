"""Register handlers with a Restate server, and remove them: looked at first, then done.

``check`` and ``consequences`` change nothing and tell what ``register`` and ``remove`` would do. What is done here is
not bound to any row. Imports the connections and the floors below. Promises that an address and headers are checked
before anything is sent, and that no message quotes more of what the address answered than its status and content type:
an answer can hold the very headers that it was asked with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop
from django.views.decorators.debug import sensitive_variables

from restate_django.client.targets import url_fault, validate_connection_headers
from restate_django.connections import connections
from restate_django.exceptions import (
    AdminRefused,
    InvalidRequest,
    Misconfigured,
    NotFound,
    NotSupported,
    OperationRefused,
    OutcomeUnknown,
    RestateError,
    Unavailable,
)
from restate_django.workers import refuse_inside_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from restate_django.client import AdminClient
    from restate_django.client.results import Deployment, HandlerInfo, ServiceInfo

#: The longest address that is taken, in characters.
LONGEST_URI: Final = 2000
#: Seconds that counting open invocations may take: who asks waits for it, and can do without.
_COUNTING: Final = 5.0

_ID: Final = re.compile(r"dp_[A-Za-z0-9]{1,64}")
# What Restate quotes of the answer that it got stands behind these words (measured on 1.6.2 and 1.7.12).
_QUOTED: Final = re.compile(r"(?:\s*(?:Response headers|Discovery response|Body)|(?<=cannot be decoded)):.*", re.DOTALL)
_CODES: Final = re.compile(r"^(?:\[[A-Z]+[0-9]+\]\s*)+")

#: What ``url_fault`` can say of an address, as whole sentences: the catalogues have those.
ADDRESS_FAULTS: Final = (
    gettext_noop("The address must be a URL such as http://localhost:8080, without blanks."),
    gettext_noop("The address is not a URL with a valid host and port."),
    gettext_noop("The address must start with http:// or https://."),
    gettext_noop("The address must not hold a user name or password: use a token or headers."),
    gettext_noop("The address must name a host, and a port that is not 0 where it names one."),
    gettext_noop("The address must not have a query (?) or a fragment (#)."),
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a registration does to one service.

    Attributes:
        name: The service's name.
        before: It as it is registered; None for a new one.
        after: It as the deployment has it; None where this deployment had it and has it no more.
        falls_back_to: Who serves a lost one from then on; None where nobody does.
    """

    name: str
    before: ServiceInfo | None
    after: ServiceInfo | None
    falls_back_to: Deployment | None = None

    @property
    def kind_changes(self) -> bool:
        """A service becomes an object, say: what was sent to it under the old kind can't go on."""
        return self.before is not None and self.after is not None and self.before.ty != self.after.ty

    @property
    def added(self) -> list[str]:
        """The names of handlers that are new."""
        return sorted(_forms(self.after).keys() - _forms(self.before).keys())

    @property
    def removed(self) -> list[str]:
        """The names of handlers that are there no more."""
        return sorted(_forms(self.before).keys() - _forms(self.after).keys()) if self.after else []

    @property
    def altered(self) -> list[str]:
        """The names of handlers that take, give or are something else."""
        before, after = _forms(self.before), _forms(self.after)
        return sorted(name for name in before.keys() & after.keys() if before[name] != after[name])


@dataclass(frozen=True, slots=True)
class Plan:
    """What a registration would do.

    Attributes:
        found: The deployment as Restate would have it. Its id is a passing one unless ``replaces`` is set.
        replaces: The deployment that is registered at this address already.
        changes: Each service that it brings, changes or loses.
        does_nothing: The address is registered, and without force Restate does not even ask it again.
        running: Open invocations that have started on the replaced deployment; None where that could not be counted.
    """

    found: Deployment
    replaces: Deployment | None
    changes: tuple[Change, ...]
    does_nothing: bool
    running: int | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """What the removal of a deployment does to one of its services.

    Attributes:
        name: The service's name.
        revision: The revision that the deployment has.
        is_latest: New invocations go to it now.
        falls_back_to: Who serves new invocations after it; None where nobody does, or nothing changes for them.
        ends: Nobody serves it after that: what is sent to it is refused.
    """

    name: str
    revision: int
    is_latest: bool
    falls_back_to: Deployment | None
    ends: bool


@dataclass(frozen=True, slots=True)
class Consequences:
    """What the removal of a deployment does.

    Attributes:
        deployment: The deployment.
        losses: What becomes of each of its services.
        running: Open invocations that have started on it, and can't go on; None where that could not be counted.
        waiting: Open ones that have not started, of services that nobody serves after that; None as above.
    """

    deployment: Deployment
    losses: tuple[Loss, ...]
    running: int | None
    waiting: int | None


# ---------------------------------------------------------------- the verbs


# In a report of an error, nothing that was at hand here or below is shown: the headers may be secrets.
@sensitive_variables()
def check(
    alias: str,
    uri: str,
    *,
    headers: Mapping[str, str] | None = None,
    force: bool = False,
    breaking: bool = False,
    use_http_11: bool = False,
) -> Plan:
    """Let Restate ask an address for its services, and tell what registering it would do. Nothing is changed.

    Args:
        alias: The connection.
        uri: Where the handlers are served, as the Restate server reaches it: ``http`` or ``https``.
        headers: Headers that Restate sends with each request to it, mostly a token. They are not kept here.
        force: Ask an address that is registered already once more, and take what it has now.
        breaking: Take services that do not fit their registered form.
        use_http_11: Ask it over HTTP/1.1.

    Raises:
        InvalidRequest: The address or a header can't be used. No header's value is shown.
        OperationRefused: Restate refused, can't reach the address, or can't be reached.
        RuntimeError: A transaction is open.
    """
    admin = _admin_of(alias)
    try:
        found = _create(admin, uri, headers, force, breaking, use_http_11, dry_run=True)
        known = {deployment.id: deployment for deployment in admin.list_deployments()}
        services = {service.name: service for service in admin.list_services()}
    except OutcomeUnknown as error:
        raise OperationRefused(
            _("Restate did not tell what is there (%(message)s). Nothing was registered.")
            % {"message": _without_quotes(error.message)},
            error.status,
        ) from None
    except RestateError as error:
        _refuse(error)
    replaces = known.get(found.id)
    changes = [Change(info.name, services.get(info.name), info) for info in found.service_infos]
    changes += [
        Change(name, services.get(name), None, _next_home(name, found.id, known.values()))
        for name in (replaces.services if replaces is not None else ())
        if name not in found.services
    ]
    running = None
    if replaces is not None and force:
        counts = count_open(admin)
        running = None if counts is None else sum(n for (_service, on), n in counts.items() if on == found.id)
    return Plan(
        found=found,
        replaces=replaces,
        changes=tuple(sorted(changes, key=lambda change: change.name)),
        does_nothing=replaces is not None and not force,
        running=running,
    )


@sensitive_variables()  # as above
def register(
    alias: str,
    uri: str,
    *,
    headers: Mapping[str, str] | None = None,
    force: bool = False,
    breaking: bool = False,
    use_http_11: bool = False,
) -> Deployment:
    """Let Restate serve the handlers at an address.

    Args:
        alias: The connection.
        uri: As in ``check``, as is the rest.
        headers: Headers that Restate sends with each request to it. Restate keeps them, nothing else does.
        force: Take the place of a deployment at the same address.
        breaking: Take services that do not fit their registered form.
        use_http_11: Talk to it over HTTP/1.1.

    Returns:
        The deployment. Restate leaves its time of registration out here.

    Raises:
        InvalidRequest: The address or a header can't be used.
        OperationRefused: Restate refused, can't reach the address, or can't be reached: nothing was registered.
        OutcomeUnknown: It may have been registered, or not.
        RuntimeError: A transaction is open.
    """
    admin = _admin_of(alias)
    try:
        deployment = _create(admin, uri, headers, force, breaking, use_http_11, dry_run=False)
    except OutcomeUnknown as error:
        raise OutcomeUnknown(
            _("Nobody knows whether it was registered (%(message)s). Look at the deployments.")
            % {"message": _without_quotes(error.message)},
            status=error.status,
        ) from None
    except RestateError as error:
        _refuse(error)
    _forget(alias, deployment.services)
    return deployment


def consequences(alias: str, deployment_id: str) -> Consequences:
    """Tell what removing a deployment would do. Nothing is changed.

    Args:
        alias: The connection.
        deployment_id: The deployment: ``dp_...``.

    Raises:
        OperationRefused: Restate knows no such deployment, or can't be reached.
        RuntimeError: A transaction is open.
    """
    admin = _admin_of(alias)
    try:
        known = {deployment.id: deployment for deployment in admin.list_deployments()}
        if deployment_id not in known:
            raise NotFound(target=deployment_id)
        services = {service.name: service for service in admin.list_services()}
    except RestateError as error:
        _refuse(error)
    deployment = known[deployment_id]
    losses = []
    for name in sorted(deployment.services):
        latest = services.get(name)
        is_latest = latest is not None and latest.deployment_id == deployment_id
        heir = _next_home(name, deployment_id, known.values())
        losses.append(
            Loss(name, deployment.revisions[name], is_latest, heir if is_latest else None, ends=is_latest and not heir)
        )
    counts = count_open(admin)
    if counts is None:
        return Consequences(deployment, tuple(losses), None, None)
    ending = {loss.name for loss in losses if loss.ends}
    return Consequences(
        deployment,
        tuple(losses),
        running=sum(number for (_service, on), number in counts.items() if on == deployment_id),
        waiting=sum(number for (service, on), number in counts.items() if on is None and service in ending),
    )


def remove(alias: str, deployment_id: str, *, force: bool = False) -> None:
    """Let Restate forget a deployment. What has started on it can't go on, until it is resumed on another one.

    Args:
        alias: The connection.
        deployment_id: The deployment: ``dp_...``.
        force: Without looking whether it is needed. Restate removes none without it (measured on 1.6.2 and 1.7.12).

    Raises:
        OperationRefused: Restate refused, knows no such deployment, or can't be reached.
        OutcomeUnknown: It may have been removed, or not.
        RuntimeError: A transaction is open.
    """
    admin = _admin_of(alias)
    if not _ID.fullmatch(deployment_id):
        _refuse(NotFound(target=deployment_id))
    try:
        services = admin.get_deployment(deployment_id).services
    except RestateError as error:
        _refuse(error)
    try:
        admin.delete_deployment(deployment_id, force=force)
    except NotSupported as error:
        raise OperationRefused(
            _("Restate removes a deployment by force alone: it does not look whether anything still needs it."),
            error.status,
        ) from error
    except OutcomeUnknown as error:
        raise OutcomeUnknown(
            _("Nobody knows whether it was removed (%(message)s). Look at the deployments.")
            % {"message": error.message.rstrip(".")},
            status=error.status,
        ) from error
    except RestateError as error:
        _refuse(error)
    _forget(alias, services)


def count_open(admin: AdminClient, timeout: float = _COUNTING) -> Mapping[tuple[str, str | None], int] | None:
    """Count open invocations by service and by the deployment that they have started on.

    Args:
        admin: The client of the Admin API.
        timeout: Seconds that it may take.

    Returns:
        None where the server did not tell in time.
    """
    try:
        return admin.count_open_invocations(timeout=timeout)
    except RestateError:
        return None


def fault_of_address(uri: str) -> str | None:
    """Return what is wrong with an address to register, as a sentence; None where nothing is."""
    fault = url_fault(uri)
    if fault is None and len(uri) > LONGEST_URI:
        return _("The address must not be longer than %(count)d characters.") % {"count": LONGEST_URI}
    if fault is None and not uri.isascii():
        return _("The address must be ASCII: write the host's name in its xn-- form, and the path percent-encoded.")
    if fault is None:
        return None
    sentence = f"The address {fault}."
    return _(sentence)  # one of ADDRESS_FAULTS


# ---------------------------------------------------------------- parts


def _admin_of(alias: str) -> AdminClient:
    refuse_inside_transaction("The administration of deployments", DEFAULT_DB_ALIAS)
    try:
        return connections[alias].require_admin("The administration of deployments")
    except NotSupported as error:
        text = _('This needs the Admin API: set RESTATE["%(alias)s"]["ADMIN_URL"].') % {"alias": alias}
        raise OperationRefused(text) from error
    except ImproperlyConfigured as error:
        raise OperationRefused(str(error)) from error


def _create(
    admin: AdminClient,
    uri: str,
    headers: Mapping[str, str] | None,
    force: bool,
    breaking: bool,
    use_http_11: bool,
    *,
    dry_run: bool,
) -> Deployment:
    if fault := fault_of_address(uri):
        raise InvalidRequest(fault)
    return admin.create_deployment(
        uri,
        additional_headers=validate_connection_headers(headers) or None,
        force=force,
        breaking=breaking,
        use_http_11=use_http_11,
        dry_run=dry_run,
    )


def _next_home(name: str, deployment_id: str, known: Iterable[Deployment]) -> Deployment | None:
    """Return who serves a service without this deployment: the one with its newest revision among the others."""
    others = [each for each in known if each.id != deployment_id and name in each.revisions]
    return max(others, key=lambda each: each.revisions[name], default=None)


def _forms(service: ServiceInfo | None) -> dict[str, tuple[Any, ...]]:
    """Return what a caller sees of each handler."""

    def form(handler: HandlerInfo) -> tuple[Any, ...]:
        described = (handler.input_description, handler.output_description)
        return (handler.ty, handler.public, *described, handler.input_json_schema, handler.output_json_schema)

    return {handler.name: form(handler) for handler in (service.handlers if service is not None else ())}


def _forget(alias: str, services: Iterable[str]) -> None:
    """Let this process ask about the services anew: what it knows of them may have changed."""
    for service in services:
        connections[alias].services.forget(service)


def _refuse(error: RestateError) -> NoReturn:
    """Say a refusal as a sentence."""
    if isinstance(error, InvalidRequest | OperationRefused):
        raise error
    message = _without_quotes(error.message)
    if isinstance(error, NotFound):
        text = _("Restate knows no such deployment (any more).")
    elif isinstance(error, AdminRefused):
        text = {
            "META0003": _("Restate can't reach it, or no handlers are served there (%(message)s)."),
            "META0006": _("Its services do not fit those that are registered (%(message)s)."),
            "META0013": _("No handlers are served there (%(message)s)."),
        }.get(error.restate_code or "", _("Restate refused (%(message)s)."))
    elif isinstance(error, Unavailable) and not isinstance(error, Misconfigured):
        text = _("The Admin API can't be reached now (%(message)s).")
    else:
        text = "%(message)s."
    # Neither chained nor logged: the server's words can hold what the address was sent.
    raise OperationRefused(text % {"message": message}, error.status) from None


def _without_quotes(message: str) -> str:
    """Return the server's words without what it quotes of another answer, without codes and a full stop."""
    return _CODES.sub("", _QUOTED.sub("", message)).rstrip(". ")
