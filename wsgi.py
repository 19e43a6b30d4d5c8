"""The WSGI entry point: ``app``. Knows no server; granian and gunicorn both take it."""

import gc

from webapp import create_app

app = create_app()

# What is loaded by now stays: without this each full collection walks the compiled rules anew, in the middle of requests.
gc.collect()
gc.freeze()
# A request makes some thousand objects and leaves no cycles behind: looking for them every 700 is too often.
gc.set_threshold(20_000, 20, 50)
