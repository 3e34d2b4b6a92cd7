"""The site for an ASGI server, as the demo runs it: badges are told by a stream then, and need not ask."""

from __future__ import annotations

import os

from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

application = get_asgi_application()
if settings.DEBUG:  # as runserver does; a real site's static files are another server's
    application = ASGIStaticFilesHandler(application)
