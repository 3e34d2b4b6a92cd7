"""Models that an invocation can belong to: one with a number for a key, one with text."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """Something a view makes, in the transaction in which it sends."""

    number = models.CharField(max_length=40, unique=True)
    note = models.TextField(blank=True, default="")

    def __str__(self) -> str:
        return self.number


class Tenant(models.Model):
    """Something whose primary key is text."""

    slug = models.SlugField(primary_key=True)

    def __str__(self) -> str:
        return self.slug
