"""Security headers of every answer."""

from flask import Flask, Response, request

CDN = "https://cdn.jsdelivr.net"
CSP = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'self' {CDN}",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)


def install(app: Flask, *, https: bool) -> None:
    """Add them to every answer; ``https``: tell browsers to stay on TLS."""

    @app.after_request
    def add(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", CSP)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("X-Frame-Options", "DENY")
        if https:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        if request.endpoint != "static":
            # Pages hold people's data: no cache on the way may keep them.
            headers.setdefault("Cache-Control", "no-store")
        return response
