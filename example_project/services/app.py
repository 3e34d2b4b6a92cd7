"""The ASGI app with all services, for any server that speaks HTTP/2: ``hypercorn services.app:app``."""

from __future__ import annotations

import restate

from services.agent import agent
from services.cart import cart
from services.greeter import greeter
from services.mailer import mailer
from services.order import order_workflow
from services.report import report

app = restate.app([greeter, cart, order_workflow, mailer, report, agent])
