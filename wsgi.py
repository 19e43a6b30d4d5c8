"""The WSGI entry point: ``app``. Knows no server; granian and gunicorn both take it."""

from webapp import create_app

app = create_app()
