"""Forms that make one invocation, however often they are sent: a double click, a reload, the browser's back button.

Each form that is shown carries a token: a random number, signed for this session and for the view that takes it in.
What it is turned into is an idempotency key that nobody else can come by. Imports Django and the errors alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.core.exceptions import BadRequest, ImproperlyConfigured, ValidationError
from django.core.signing import BadSignature, Signer
from django.db import transaction
from django.utils.translation import gettext as _

from restate_django.exceptions import IdempotencyConflict

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.views.generic.edit import FormView

    _Form = forms.BaseForm
    _FormView = FormView[Any]
else:
    _Form = _FormView = object

#: The name of the hidden input.
FIELD: Final = "idempotency_key"
#: The script that gives a form its token back when the browser goes back to it.
SCRIPT: Final = "restate_django/form.js"

_SALT: Final = "restate_django.forms"
_SESSION_KEY: Final = "restate_django_forms"


# ---------------------------------------------------------------- tokens


def new_token(request: HttpRequest, view: str = "") -> str:
    """Make a token for a form. A visitor without a session gets one.

    Args:
        request: The request that the form is shown for.
        view: The name of the view that takes the form in (``shop:orders``); the request's own by default.
    """
    session = _session(request)
    if _SESSION_KEY not in session:
        # Not the session's own key: that changes at each login, and is the whole content where it is kept in a cookie.
        session[_SESSION_KEY] = secrets.token_hex(16)
    begin = _binding(request, view)
    return _signer().sign(f"{begin}{secrets.token_hex(16)}").removeprefix(begin)


def read_token(request: HttpRequest, token: str) -> str | None:
    """Turn a token that was sent into an idempotency key.

    Args:
        request: The request that the form came with.
        token: What it sent.

    Returns:
        32 hexadecimal digits, the same for the same token; None for a token that was not made for this session and
        this view.
    """
    # With more dots in it, the end of one view's name could pass for the beginning of a token.
    if _SESSION_KEY not in _session(request) or token.count(".") != 1:
        return None
    try:
        signed = _signer().unsign(f"{_binding(request)}{token}")
    except BadSignature:
        return None
    return hashlib.sha256(signed.encode()).hexdigest()[:32]


def idempotency_key(request: HttpRequest) -> str:
    """Return the idempotency key of a POST whose form has ``{% idempotency_key %}``, for a view without a form class.

    Raises:
        BadRequest: The token is missing, or was made for another session or view. Django answers 400.
    """
    key = read_token(request, request.POST.get(FIELD, ""))
    if key is None:
        raise BadRequest(_("The form's idempotency key is not one of this session and view: load the page anew."))
    return key


def _session(request: HttpRequest) -> Any:
    try:
        return request.session
    except AttributeError:
        raise ImproperlyConfigured(
            "An idempotency key is bound to a session: add django.contrib.sessions and its middleware."
        ) from None


def _binding(request: HttpRequest, view: str = "") -> str:
    """What a token is signed for, ahead of its number."""
    match = request.resolver_match
    return f"{_session(request)[_SESSION_KEY]}.{view or (match.view_name if match else '')}."


def _signer() -> Signer:
    return Signer(salt=_SALT, sep=".")


# ---------------------------------------------------------------- forms


class TokenInput(forms.HiddenInput):
    """The hidden input of a token, with the script that keeps it over the browser's back button."""

    class Media:
        # Deferred: it looks for the inputs of the whole page.
        js = (forms.Script(SCRIPT, defer=True),)

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        # Firefox would fill in the old one when the page is loaded anew.
        super().__init__({"autocomplete": "off", "data-restate-key": "", **(attrs or {})})


class IdempotentFormMixin(_Form):
    """A form with a token: ``form.idempotency_key`` is what ``send`` takes, when the form is valid.

    Its template needs ``{{ form.media }}`` and the hidden fields. A token that was made for another session or view is
    an error of the form, which comes back with a new one.

    Args:
        request: The request.
        view: The name of the view that takes the form in, where it is another one than the request's.
    """

    def __init__(self, *args: Any, request: HttpRequest, view: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request
        self._view = view
        self.fields[FIELD] = forms.CharField(required=False, widget=TokenInput)
        if not self.is_bound:
            self.initial[FIELD] = new_token(request, view)

    @property
    def idempotency_key(self) -> str:
        """The key of a valid form."""
        key: str = self.cleaned_data[FIELD]
        return key

    def clean_idempotency_key(self) -> str:
        """Turn the token into the key."""
        key = read_token(self.request, self.cleaned_data[FIELD])
        if key is None:
            self._ask_again(_("This form was opened too long ago, or before a login. Send it again."))
        return key or ""

    def refuse(self, conflict: IdempotencyConflict) -> None:  # noqa: ARG002 - it says what the form refuses
        """Tell that this very form was sent before with other content, and give it a new token.

        Args:
            conflict: What ``send`` raised.
        """
        self._ask_again(_("You have sent this form before, with other content. Send it again to ask for this too."))

    def _ask_again(self, message: str) -> None:
        data: Any = self.data.copy()  # type: ignore[attr-defined] # a QueryDict or a dict, both have it
        data[self.add_prefix(FIELD)] = new_token(self.request, self._view)
        self.data = data
        self.add_error(None, ValidationError(message, code="idempotency_key"))


class IdempotentViewMixin(_FormView):
    """For a ``FormView`` and its kin whose form is an ``IdempotentFormMixin``: put it before them.

    It hands the request to the form. Where ``form_valid`` raises ``IdempotencyConflict`` (the visitor went back and
    changed what was sent), the form comes back and says so.
    """

    _form: Any = None

    def get_form_kwargs(self) -> dict[str, Any]:
        """Add the request."""
        return {**super().get_form_kwargs(), "request": self.request}

    def get_form(self, form_class: Any = None) -> Any:
        """Keep the form for a conflict."""
        self._form = super().get_form(form_class)
        return self._form

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Take the form in."""
        # With ATOMIC_REQUESTS what form_valid wrote must go before a page can answer that it was not done.
        savepoint = transaction.atomic() if transaction.get_connection().in_atomic_block else contextlib.nullcontext()
        try:
            with savepoint:
                return super().post(request, *args, **kwargs)
        except IdempotencyConflict as conflict:
            self._form.refuse(conflict)
            return self.form_invalid(self._form)
