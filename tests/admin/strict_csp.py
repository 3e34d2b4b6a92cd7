"""A middleware that lets a browser run nothing that stands in the page itself."""

from __future__ import annotations


def strict_csp(get_response):
    """Allow the site's own files, and no inline script or style."""

    def middleware(request):
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", "default-src 'self'")
        return response

    return middleware
