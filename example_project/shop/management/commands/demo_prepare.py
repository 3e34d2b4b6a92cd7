"""``demo_prepare``: what the site needs before it starts. ``demo`` runs it; it is harmless to run again."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Bring the database up to date and make a staff user."""

    help = "Migrates the database and makes the staff user admin with the password admin, unless there is an admin."

    def handle(self, **options: Any) -> None:
        """Do it."""
        call_command("migrate", verbosity=options["verbosity"], interactive=False)
        users: Any = get_user_model()._default_manager
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", "admin@example.com", "admin")
