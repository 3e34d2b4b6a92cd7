"""What the shop remembers itself: what a visitor asked for. What became of it is in the invocations."""

from __future__ import annotations

import uuid

from django.db import models
from django.urls import reverse

from restate_django.models import Invocation


class Asked(models.Model):
    """Something that a visitor asked for, and that one invocation is for.

    Attributes:
        visitor: Whose it is: a number that lives in the visitor's session.
        created_at: When it was asked for.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    visitor = models.CharField(max_length=32, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True
        ordering = ("-created_at",)

    @property
    def invocation(self) -> Invocation | None:
        """The newest invocation that was sent for it."""
        return Invocation.objects.for_object(self).first()


class Order(Asked):
    """An order. Its token is its form's idempotency key, so sending the form twice finds the same order."""

    token = models.CharField(max_length=64, unique=True, editable=False)
    items = models.JSONField(default=dict)
    total = models.PositiveIntegerField(help_text="In cents.")

    def __str__(self) -> str:
        return f"Order {str(self.pk)[:8]}"

    def get_absolute_url(self) -> str:
        """Return the address of its page."""
        return reverse("shop:order", args=[self.pk])


class Reminder(Asked):
    """A mail that somebody wants to get later."""

    email = models.EmailField()
    text = models.CharField(max_length=200)
    seconds = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"Reminder for {self.email}"


class Report(Asked):
    """A sales report. It never gets done by itself: the warehouse does not answer."""

    def __str__(self) -> str:
        return f"Report {str(self.pk)[:8]}"


class Question(Asked):
    """A question for the agent."""

    topic = models.SlugField(max_length=60)
    text = models.CharField(max_length=500)

    def __str__(self) -> str:
        return f"Question about {self.topic}"
