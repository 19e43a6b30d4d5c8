"""Whose certificates count: the authorities that the system and certifi know, and those that the operator names as well."""

import os
import ssl
import threading
from contextlib import suppress
from functools import cache
from typing import Any

import certifi

from webapp.leads.ports import Unusable

#: Each names a file (or a folder, as ``openssl rehash`` makes it) of authorities.
NAMED_BY = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_building = threading.Lock()


class _Context(ssl.SSLContext):
    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        """urllib3 does it anew for each connection, which is not safe on a context that threads share; nothing is lost,
        since HTTP/1.1 is what goes without saying, and mail servers know none."""


def trusted() -> ssl.SSLContext:
    """For connections of ours, in any thread; Unusable where what the operator names holds no certificate."""
    named = ((variable, os.environ.get(variable)) for variable in NAMED_BY)
    with _building:  # a cache alone would have each of a worker's first calls read them, all at once
        return _built(certifi.where(), tuple((variable, path) for variable, path in named if path))


@cache
def _built(usual: str, named: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    """Once for each choice of files: reading them takes longer than a handshake."""
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    context.load_default_certs()
    with suppress(OSError):  # OpenSSL leaves its own file out where SSL_CERT_FILE names another
        context.load_verify_locations(ssl.get_default_verify_paths().openssl_cafile)
    context.load_verify_locations(usual)
    for variable, path in named:
        try:
            if os.path.isdir(path):
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(path)
        except OSError:
            raise Unusable(
                f"{variable} names no file of certificates",
                remedy=f"Put {variable} right in the environment and start the console anew.",
            ) from None
    return context
