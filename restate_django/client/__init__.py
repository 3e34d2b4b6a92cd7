"""A complete client of a Restate server: its ingress and its Admin API, over ``requests``.

It needs no Django settings and touches no database, so a script can use it as it is. It may import the error tree and
Django's JSON encoder, and nothing else of the project. Each name is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from restate_django.lazy import lazy_names

if TYPE_CHECKING:
    from restate_django.client.admin_api import AdminClient, detect_path_style
    from restate_django.client.ingress import IngressClient, Sending
    from restate_django.client.outcomes import final_status
    from restate_django.client.payloads import (
        NO_PAYLOAD,
        EncodedPayload,
        NoPayload,
        decode_output,
        encode_payload,
        is_json,
    )
    from restate_django.client.results import (
        Deployment,
        HandlerInfo,
        InvocationDescription,
        InvocationRow,
        InvocationStage,
        KafkaCluster,
        OperationResult,
        Output,
        OutputState,
        Rule,
        SendReceipt,
        ServiceInfo,
        Subscription,
        Version,
    )
    from restate_django.client.targets import MAX_DELAY, Target, resolve_target, validate_target

__all__ = [
    "MAX_DELAY",
    "NO_PAYLOAD",
    "AdminClient",
    "Deployment",
    "EncodedPayload",
    "HandlerInfo",
    "IngressClient",
    "InvocationDescription",
    "InvocationRow",
    "InvocationStage",
    "KafkaCluster",
    "NoPayload",
    "OperationResult",
    "Output",
    "OutputState",
    "Rule",
    "SendReceipt",
    "Sending",
    "ServiceInfo",
    "Subscription",
    "Target",
    "Version",
    "decode_output",
    "detect_path_style",
    "encode_payload",
    "final_status",
    "is_json",
    "resolve_target",
    "validate_target",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "admin_api": (
            "AdminClient",
            "detect_path_style",
        ),
        "ingress": (
            "IngressClient",
            "Sending",
        ),
        "outcomes": ("final_status",),
        "payloads": (
            "NO_PAYLOAD",
            "EncodedPayload",
            "NoPayload",
            "decode_output",
            "encode_payload",
            "is_json",
        ),
        "results": (
            "Deployment",
            "HandlerInfo",
            "InvocationDescription",
            "InvocationRow",
            "InvocationStage",
            "KafkaCluster",
            "OperationResult",
            "Output",
            "OutputState",
            "Rule",
            "SendReceipt",
            "ServiceInfo",
            "Subscription",
            "Version",
        ),
        "targets": (
            "MAX_DELAY",
            "Target",
            "resolve_target",
            "validate_target",
        ),
    },
)
