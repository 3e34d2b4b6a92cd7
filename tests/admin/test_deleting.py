"""Deleting rows in the admin: those that have ended, by those who may. An open one is deleted by nobody."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import DELETION, LogEntry

from restate_django.lifecycle import OPEN, Status
from restate_django.models import Invocation
from tests.admin.pages import messages_of, page_of, press
from tests.admin.rows import make_row

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("status", Status)
def test_one_row(operator, status):
    row = make_row(status)
    is_open = status in OPEN
    address = page_of(row).replace("change", "delete")
    assert (address in operator.get(page_of(row)).content.decode()) != is_open
    assert operator.get(address).status_code == (403 if is_open else 200)
    operator.post(address, {"post": "yes"})
    assert Invocation.objects.filter(pk=row.pk).exists() == is_open


def test_a_selection(operator):
    ended, running, unsent = make_row("succeeded"), make_row("running"), make_row("unsent")
    question = press(operator, "delete_selected", ended, running, unsent)
    assert messages_of(question) == [
        ("warning", "2 open invocations are kept: cancel or kill them first."),
    ]
    assert question.context["model_count"] is not None
    answer = press(operator, "delete_selected", ended, running, unsent, post="yes")
    assert ("success", "Successfully deleted 1 invocation.") in messages_of(answer)
    assert set(Invocation.objects.all()) == {running, unsent}
    assert [entry.object_id for entry in LogEntry.objects.filter(action_flag=DELETION)] == [str(ended.pk)]


def test_a_selection_of_open_ones(operator):
    row = make_row("running")
    response = press(operator, "delete_selected", row)
    assert messages_of(response) == [("warning", "1 open invocation is kept: cancel or kill it first.")]
    assert Invocation.objects.filter(pk=row.pk).exists()
