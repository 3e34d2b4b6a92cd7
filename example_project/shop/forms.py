"""What the pages take in, checked before anything is recorded."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from restate_django.forms import IdempotentFormMixin
from shop.catalogue import BY_SKU

MOST_OF_ONE = 99


def known_product(sku: str) -> None:
    """Refuse what the shop does not sell."""
    if sku not in BY_SKU:
        raise ValidationError("The shop does not sell that.")


class ItemForm(forms.Form):
    """One product and how many of it."""

    sku = forms.CharField(validators=[known_product])
    quantity = forms.IntegerField(min_value=1, max_value=MOST_OF_ONE, initial=1)


class OrderForm(IdempotentFormMixin, forms.Form):
    """An order, once however often it is sent: items, or none for those in the cart."""

    sku = forms.CharField(required=False, validators=[known_product])
    quantity = forms.IntegerField(min_value=1, max_value=MOST_OF_ONE, initial=1, required=False)

    def items(self) -> dict[str, int]:
        """Return the product of the form as items; empty when it names none."""
        sku = self.cleaned_data["sku"]
        return {sku: self.cleaned_data["quantity"] or 1} if sku else {}


class ReminderForm(forms.Form):
    """A reminder by mail, some seconds from now."""

    email = forms.EmailField(label="Your address")
    text = forms.CharField(label="Remind me of", max_length=200, initial="Water the plant")
    seconds = forms.IntegerField(label="In how many seconds", min_value=0, max_value=86_400, initial=20)


class QuestionForm(forms.Form):
    """A question for the agent."""

    question = forms.CharField(
        label="Your question", max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 3})
    )

    def text(self, topic: str) -> str:
        """Return the question, or a plain one about the topic when the visitor left it empty."""
        said: Any = self.cleaned_data["question"].strip()
        return str(said) or f"What should I know about {topic}?"


class GreetingForm(forms.Form):
    """Somebody to greet."""

    name = forms.CharField(label="Your name", max_length=80)
