"""The example's alert rules, judged by the metrics as they are now: what Prometheus would say of them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from restate_django.contrib.prometheus.metrics import Databases

FOLDER = Path(__file__).resolve().parent.parent / "example_project" / "monitoring"
_RULE = re.compile(
    r"(?P<since>time\(\) - )?max by \([\w, ]+\) "
    r"\((?P<name>\w+)(?P<labels>\{.*\})?\) (?P<sign>[<>]) (?P<bound>\d+)"
)


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return group["rules"]


def firing(after: float = 300) -> set[str]:
    """The names of the rules that find something wrong by the metrics as they are.

    Args:
        after: Seconds in place of the rules' 300.
    """
    registry = CollectorRegistry()
    registry.register(Databases())
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    found = set()
    for rule in rules():
        if absent := re.fullmatch(r"absent\((\w+)\)", rule["expr"]):
            if all(sample.name != absent[1] for sample in samples):
                found.add(rule["alert"])
            continue
        matched = _RULE.fullmatch(rule["expr"])
        assert matched, f"this can't be judged here: {rule['expr']}"
        wanted = dict(re.findall(r'(\w+)="(\w+)"', matched["labels"] or ""))
        values = [
            sample.value
            for sample in samples
            if sample.name == matched["name"] and wanted.items() <= sample.labels.items()
        ]
        bound = after if matched["bound"] == "300" else float(matched["bound"])
        ages = [time.time() - value if matched["since"] else value for value in values]
        if any(age > bound if matched["sign"] == ">" else age < bound for age in ages):
            found.add(rule["alert"])
    return found
