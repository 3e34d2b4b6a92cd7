"""The pages that register and remove a deployment: each shows what would happen, and does it on a second step.

Nothing is kept between the steps but what the user's own page carries; extra headers are in no log, no history and no
message. The views hold no transaction (see ``InvocationAdmin.get_urls``), because they talk to Restate. Imports the
modules beside it and the verbs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import django
from django import forms
from django.contrib import messages
from django.contrib.admin.models import ADDITION, CHANGE, DELETION
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.core.signing import Signer
from django.http import HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from restate_django import conf, deployments
from restate_django.admin import deployment_history
from restate_django.admin.servers import kind_of, protocol_of
from restate_django.client.targets import validate_connection_headers
from restate_django.exceptions import InvalidRequest, OperationRefused, OutcomeUnknown

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from restate_django.admin.invocations import InvocationAdmin

_SALT: Final = "restate_django.admin.deploying"
_LONGEST_REASON: Final = 500
_MOST_HEADERS: Final = 50


class RegisterForm(forms.Form):
    """What a registration needs."""

    connection = forms.ChoiceField(label=gettext_lazy("Connection"))
    uri = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=deployments.LONGEST_URI,
        help_text=gettext_lazy("Where the handlers are served, as the Restate server reaches it: http or https."),
        widget=forms.TextInput(
            attrs={
                "class": "vTextField",
                "dir": "ltr",
                "inputmode": "url",
                "placeholder": "http://handlers:9080",
                "size": 60,
            }
        ),
    )
    headers = forms.CharField(
        label=gettext_lazy("Extra headers"),
        required=False,
        max_length=20_000,
        help_text=gettext_lazy(
            "One in a line: Name: value. Restate keeps them and sends them with each request to this address. Django"
            " neither stores nor logs them."
        ),
        widget=forms.Textarea(
            attrs={"rows": 3, "class": "vLargeTextField", "dir": "ltr", "autocomplete": "off", "spellcheck": "false"}
        ),
    )
    force = forms.BooleanField(
        label=gettext_lazy("Force"),
        required=False,
        help_text=gettext_lazy(
            "Ask an address that is registered already once more, and take what it has now in the place of what it had."
            " What is running there may break."
        ),
    )
    breaking = forms.BooleanField(
        label=gettext_lazy("Allow breaking changes"),
        required=False,
        help_text=gettext_lazy("Take services that do not fit their registered form: another kind, fewer handlers."),
    )
    use_http_11 = forms.BooleanField(
        label=gettext_lazy("Use HTTP/1.1"),
        required=False,
        help_text=gettext_lazy("For handlers behind a server that does not speak HTTP/2, such as one of WSGI."),
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        required=False,
        max_length=_LONGEST_REASON,
        help_text=gettext_lazy("It is kept in the history. You may leave it empty."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["connection"]
        field.choices = [(alias, alias) for alias in _aliases()]

    def clean_uri(self) -> str:
        """Take what can be an address."""
        uri: str = self.cleaned_data["uri"]
        if fault := deployments.fault_of_address(uri):
            raise forms.ValidationError(fault)
        return uri

    def clean_headers(self) -> dict[str, str]:
        """Read the lines. No complaint shows a value."""
        headers: dict[str, str] = {}
        for number, line in enumerate(self.cleaned_data["headers"].splitlines(), 1):
            if not line.strip():
                continue
            name, colon, value = line.partition(":")
            if not colon or number > _MOST_HEADERS:
                raise forms.ValidationError(_("Line %(number)d is no header: Name: value.") % {"number": number})
            if name.strip() in headers:
                raise forms.ValidationError(_("Line %(number)d names a header again.") % {"number": number})
            headers[name.strip()] = value.strip()
        try:
            return validate_connection_headers(headers)
        except InvalidRequest as error:
            raise forms.ValidationError(_("A header can't be used: %(message)s") % {"message": error}) from None

    @property
    def options(self) -> dict[str, Any]:
        """What the verbs take beside the connection and the address."""
        return {name: self.cleaned_data[name] for name in ("headers", "force", "breaking", "use_http_11")}


def register(model_admin: InvocationAdmin, request: HttpRequest) -> HttpResponse:
    """Ask for an address, show what it would bring, register it."""
    return _register(request, model_admin)


@sensitive_post_parameters("headers")
@sensitive_variables("form")
def _register(request: HttpRequest, model_admin: InvocationAdmin) -> HttpResponse:
    _only_for_managers(model_admin, request)
    if request.method in {"GET", "HEAD"}:
        form = RegisterForm(initial={"connection": request.GET.get("connection", "")})
        return _form_page(model_admin, request, form)
    if request.method != "POST":
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    form = RegisterForm(request.POST)
    if not form.is_valid() or "_edit" in request.POST:
        return _form_page(model_admin, request, form)
    alias, uri = form.cleaned_data["connection"], form.cleaned_data["uri"]
    try:
        plan = deployments.check(alias, uri, **form.options)
    except (OperationRefused, InvalidRequest) as error:
        form.add_error(None, str(error))
        return _form_page(model_admin, request, form)
    seal = _seal(request, form, plan)
    asked = "_register" in request.POST
    if plan.does_nothing or not asked or not constant_time_compare(request.POST.get("seal", ""), seal):
        return _plan_page(model_admin, request, form, plan, seal, has_changed=asked)
    try:
        deployment = deployments.register(alias, uri, **form.options)
    except OutcomeUnknown as error:
        # What the server said is for the user's eyes alone.
        text = _("Asked Restate to register it. Nobody knows whether it did.")
        deployment_history.write(request, CHANGE, alias, uri, text, form.cleaned_data["reason"])
        messages.warning(request, str(error))
    except (OperationRefused, InvalidRequest) as error:
        text = _("Restate refused to register it.")
        deployment_history.write(request, CHANGE, alias, uri, text, form.cleaned_data["reason"])
        form.add_error(None, str(error))
        return _form_page(model_admin, request, form)
    else:
        names = ", ".join(sorted(deployment.services))
        text = _("Registered %(uri)s, which serves %(services)s.") % {"uri": uri, "services": names}
        if form.cleaned_data["force"]:
            text += " " + _("By force.")
        flag = CHANGE if plan.replaces else ADDITION
        deployment_history.write(request, flag, alias, deployment.id, text, form.cleaned_data["reason"])
        messages.success(
            request, _("Registered %(id)s, which serves %(services)s.") % {"id": deployment.id, "services": names}
        )
    return HttpResponseRedirect(model_admin.url("servers"))


def remove(model_admin: InvocationAdmin, request: HttpRequest) -> HttpResponse:
    """Show what would be lost with a deployment, and remove it."""
    _only_for_managers(model_admin, request)
    if request.method not in {"GET", "HEAD", "POST"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    given = request.POST if request.method == "POST" else request.GET
    alias, deployment_id = given.get("connection", ""), given.get("deployment", "")
    reason = given.get("reason", "").strip()[:_LONGEST_REASON]
    complaint = ""
    try:
        if request.method == "POST":
            deployments.remove(alias, deployment_id, force="force" in request.POST)
    except OutcomeUnknown as error:
        text = _("Asked Restate to remove it. Nobody knows whether it did.")
        deployment_history.write(request, CHANGE, alias, deployment_id, text, reason)
        messages.warning(request, str(error))
        return HttpResponseRedirect(model_admin.url("servers"))
    except OperationRefused as error:
        complaint = error.reason
        text = _("%(operation)s was not done. %(reason)s") % {"operation": _("Remove"), "reason": complaint}
        deployment_history.write(request, CHANGE, alias, deployment_id, text, reason)
    else:
        if request.method == "POST":
            deployment_history.write(request, DELETION, alias, deployment_id, _("Removed it by force."), reason)
            messages.success(request, _("Removed %(id)s.") % {"id": deployment_id})
            return HttpResponseRedirect(model_admin.url("servers"))
    try:
        told = deployments.consequences(alias, deployment_id)
    except OperationRefused as error:
        messages.error(request, error.reason)
        return HttpResponseRedirect(model_admin.url("servers"))
    context = {
        "title": _("Remove a deployment: are you sure?"),
        "alias": alias,
        "told": told,
        "protocol": protocol_of(told.deployment),
        "complaint": complaint,
        "reason": reason,
        "ends": [loss for loss in told.losses if loss.ends],
        "falls_back": [loss for loss in told.losses if loss.falls_back_to],
        "stays": [loss for loss in told.losses if not loss.is_latest],
    }
    return _page(model_admin, request, "deployment_remove.html", context)


# ---------------------------------------------------------------- parts


def _only_for_managers(model_admin: InvocationAdmin, request: HttpRequest) -> None:
    if not model_admin.has_deployments_permission(request):
        raise PermissionDenied


def _aliases() -> list[str]:
    """The connections that have an Admin API."""
    try:
        return [alias for alias in conf.aliases() if conf.get_settings(alias).admin_url is not None]
    except ImproperlyConfigured:
        return []


def _seal(request: HttpRequest, form: RegisterForm, plan: deployments.Plan) -> str:
    """Return a signature of what was asked and of what it would do: what was seen is what is registered."""
    shown = [
        (
            change.name,
            change.before and (change.before.revision, change.before.deployment_id),
            change.after and (change.after.ty, change.after.revision),
            change.added,
            change.removed,
            change.altered,
            change.falls_back_to and change.falls_back_to.id,
        )
        for change in plan.changes
    ]
    asked = [form.cleaned_data["connection"], form.cleaned_data["uri"], sorted(form.options["headers"].items())]
    asked += [form.options[name] for name in ("force", "breaking", "use_http_11")]
    whole = [str(request.user.pk), asked, plan.replaces and plan.replaces.id, shown]
    return Signer(salt=_SALT).signature(json.dumps(whole))


def _form_page(model_admin: InvocationAdmin, request: HttpRequest, form: RegisterForm) -> HttpResponse:
    context = {"title": _("Register a deployment"), "form": form, "none": not _aliases()}
    return _page(model_admin, request, "deployment_register.html", context)


def _plan_page(
    model_admin: InvocationAdmin,
    request: HttpRequest,
    form: RegisterForm,
    plan: deployments.Plan,
    seal: str,
    *,
    has_changed: bool,
) -> HttpResponse:
    context = {
        "title": _("Register a deployment: what it would do"),
        "form": form,
        "plan": plan,
        "protocol": protocol_of(plan.found),
        "changes": [
            {
                "change": change,
                "kind": next((kind_of(info) for info in (change.after, change.before) if info), ""),
                "was": kind_of(change.before) if change.before and change.kind_changes else "",
            }
            for change in plan.changes
        ],
        "seal": seal,
        "has_changed": has_changed,
        "header_names": list(form.options["headers"]),
    }
    return _page(model_admin, request, "deployment_plan.html", context)


def _page(model_admin: InvocationAdmin, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(
        request,
        f"admin/restate_django/{template}",
        {
            **model_admin.admin_site.each_context(request),
            "opts": model_admin.opts,
            "media": model_admin.media,
            "crumbs_are_list": django.VERSION >= (6, 1),
            "crumb_title": _("Restate servers"),
            "crumb_url": model_admin.url("servers"),
            "back_url": model_admin.url("servers"),
            **context,
        },
    )
