"""The ids of awakeables: made from an invocation's id as an SDK makes them. Real servers are asked elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restate_django.client.awakeable_ids import FIRST_INDEX, index_in, make_awakeable_id
from restate_django.exceptions import InvalidRequest

#: As 1.7.12 and the Python SDK 1.3 made them.
INVOCATION = "inv_1eA4QCON61Mc4QTiaD7swDC0lxlBLBigfp"
AWAKEABLE = "sign_10Ezw_yUw2KmbnxigNITCrTUiH1GeGHWfAAAAEQ"


def test_an_id_is_made_as_the_sdk_makes_it():
    assert make_awakeable_id(INVOCATION, FIRST_INDEX) == AWAKEABLE
    assert index_in(INVOCATION, AWAKEABLE) == FIRST_INDEX


@given(index=st.integers(FIRST_INDEX, 2**32 - 1))
def test_every_number_comes_back(index):
    assert index_in(INVOCATION, make_awakeable_id(INVOCATION, index)) == index


@given(text=st.text(max_size=60))
def test_any_other_text_is_no_awakeable_of_it(text):
    assert index_in(INVOCATION, text) is None
    assert index_in(INVOCATION, f"sign_1{text}") is None
    assert index_in(text, AWAKEABLE) is None


@pytest.mark.parametrize(
    "awakeable",
    [
        make_awakeable_id("inv_1fwetj4yDy8U09vVnuKtZTVRPCl16m79oe", FIRST_INDEX),
        make_awakeable_id(INVOCATION, 1),  # the signal of a cancellation
        AWAKEABLE + "=",
        AWAKEABLE.replace("sign_1", "prom_1"),
        AWAKEABLE.removeprefix("sign_1"),
    ],
)
def test_what_looks_like_one_and_is_none(awakeable):
    assert index_in(INVOCATION, awakeable) is None


@pytest.mark.parametrize(
    "invocation", ["inv_1", INVOCATION[:-1], INVOCATION + "0", "inv_2" + INVOCATION[5:], "inv_1" + "Z" * 33]
)
def test_an_invocation_id_of_another_form_is_refused(invocation):
    with pytest.raises(InvalidRequest, match="form that is not known"):
        make_awakeable_id(invocation, FIRST_INDEX)
