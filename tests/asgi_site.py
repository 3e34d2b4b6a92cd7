"""A site of a project's own under ASGI: the pages of ``own_site``, and views that are coroutines."""

from __future__ import annotations

from django.http import JsonResponse
from django.urls import path

from restate_django import acall, asend
from restate_django.exceptions import OperationRefused
from restate_django.models import Invocation
from tests import own_site


async def twins(request):
    """Use every twin there is, one after the other, and tell what became of it."""
    said = {}
    row = await asend("Fail", "backoff", {}, requested_by=await request.auser())
    said["asend"] = row.status
    said["arefresh"] = (await row.arefresh()).polled_at is not None
    await row.apause()
    await row.aresume()
    await row.acancel()
    said["akill"] = (await row.akill()).status
    said["acall"] = await acall("Greeter", "greet", {"name": "Mary"}, timeout=10)
    done = await asend("Greeter", "greet", {"name": "Joe"})
    said["aattach"] = await done.aattach(timeout=10)
    said["afetch_output"] = (await done.afetch_output()).result()
    said["arestart_as_new"] = await (await done.arestart_as_new()).aattach(timeout=10)
    await done.apurge_journal()
    await done.apurge()
    try:
        await done.aresend()
    except OperationRefused as error:
        said["aresend"] = type(error).__name__
    return JsonResponse(said)


async def wait(request, pk):
    """Wait for an invocation's end."""
    row = await Invocation.objects.aget(pk=pk)
    return JsonResponse({"output": await row.aattach(timeout=30)})


urlpatterns = [*own_site.urlpatterns, path("twins/", twins), path("wait/<uuid:pk>/", wait)]
