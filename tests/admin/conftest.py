"""The people who open the admin, from nobody to the superuser, and a client for each."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

EVERYTHING = (
    "view_invocation",
    "delete_invocation",
    "cancel_invocation",
    "kill_invocation",
    "pause_invocation",
    "resume_invocation",
    "purge_invocation",
    "restart_invocation",
    "resend_invocation",
    "resolve_awakeable",
    "view_invocation_payload",
    "manage_deployments",
)


@pytest.fixture
def user_with(db):
    """A function that makes a staff user with these permissions."""

    def make(*codenames, name="operator"):
        user = get_user_model().objects.create_user(name, is_staff=True)
        permissions = Permission.objects.filter(content_type__app_label="restate_django", codename__in=codenames)
        assert permissions.count() == len(codenames)
        user.user_permissions.set(permissions)
        return user

    return make


@pytest.fixture
def client_of():
    """A function that logs a user in."""

    def make(user):
        client = Client()
        if user is not None:
            client.force_login(user)
        return client

    return make


@pytest.fixture
def viewer(user_with, client_of):
    """May look at everything but payloads."""
    return client_of(user_with("view_invocation", name="viewer"))


@pytest.fixture
def operator(user_with, client_of):
    """May do everything."""
    return client_of(user_with(*EVERYTHING, name="operator"))
