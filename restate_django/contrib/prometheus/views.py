"""The page that Prometheus reads. It is closed: a token opens it, or the permission to view invocations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.db import connections as databases
from django.db import transaction
from django.http import HttpResponse
from django.utils.crypto import constant_time_compare
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.generic import View
from prometheus_client.exposition import choose_encoder

from restate_django.contrib.prometheus import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


def _outside_transactions(view: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a view out of ``ATOMIC_REQUESTS``, on every database: one that fails a question is asked another one."""
    for alias in databases:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


@method_decorator([_outside_transactions, login_not_required, never_cache], name="dispatch")
class MetricsView(View):
    """Shows all metrics of ``prometheus_client``'s default registry, those of other packages too.

    Attributes:
        token: The bearer token that opens it: ``MetricsView.as_view(token=...)``. Without one, or with an empty one, it
            is open to users who may view invocations.
    """

    http_method_names = ["get", "head"]
    token: str | None = None

    def get(self, request: HttpRequest) -> HttpResponse:
        """Answer with the metrics, in the format that is asked for."""
        if not self._is_open_to(request):
            raise PermissionDenied
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        encoded: Any = encode(metrics.registry())
        return HttpResponse(encoded, content_type=content_type)

    def _is_open_to(self, request: HttpRequest) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if self.token and scheme.lower() == "bearer" and constant_time_compare(given.strip(), self.token):
            return True
        user = getattr(request, "user", None)
        return bool(user is not None and user.has_perm("restate_django.view_invocation"))
