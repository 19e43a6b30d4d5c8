"""Bodies that are files: streamed to the imports folder, raw or as ``multipart/form-data``."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from flask import request
from werkzeug.formparser import MultiPartParser

from webapp.api import auth
from webapp.api.body import parts
from webapp.leads import imports
from webapp.leads.errors import Invalid, Problem
from webapp.leads.imports import Receiver, Stored

_MAX_FIELDS = 50
_FIELD_BYTES = 256 << 10
MULTIPART = "multipart/form-data"


@dataclass(slots=True)
class Upload:
    """A file taken in. ``fields``: what came beside it in a form. Unless :attr:`kept` is set, it is deleted when the
    request is over."""

    stored: Stored
    filename: str = ""
    content_type: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    kept: bool = False


@contextmanager
def upload() -> Iterator[Upload]:
    """The request's body as a file. Invalid with code ``payload_too_large`` over ``MAX_IMPORT_BYTES``."""
    settings = auth.settings()
    folder, limit = settings.imports_folder, settings.max_import_bytes
    if (request.mimetype or "").lower() == MULTIPART:
        found = _from_form(limit)
    else:
        stored = imports.receive(parts(limit), folder, limit=limit)
        found = Upload(stored, content_type=request.mimetype or "")
    try:
        yield found
    finally:
        if not found.kept:
            imports.remove(folder, found.stored.name)


def _from_form(limit: int) -> Upload:
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary.isascii() or not 0 < len(boundary) <= 200:
        raise Invalid("multipart/form-data needs a boundary", code="invalid_param")
    receivers: list[Receiver] = []

    def receiver(*_: Any, **__: Any) -> Any:
        receivers.append(_Sink(auth.settings().imports_folder, limit=limit))
        return receivers[-1]

    parser = MultiPartParser(
        stream_factory=receiver, max_form_memory_size=_FIELD_BYTES, max_form_parts=_MAX_FIELDS, buffer_size=1 << 18
    )
    try:
        stream = cast(BinaryIO, _Stream(parts(limit + _FIELD_BYTES)))
        form, files = parser.parse(stream, boundary.encode(), request.content_length)
        found = files.get("file")
        if found is None or len(receivers) != 1:
            raise Invalid(
                "one file is expected", details=(Problem("file", "exactly one file, in a field called file"),)
            )
        return Upload(receivers[0].finish(), found.filename or "", found.content_type or "", form.to_dict())
    except ValueError:
        _discard(receivers)
        raise Invalid("the form cannot be read", code="invalid_param") from None
    except BaseException:
        _discard(receivers)
        raise


def _discard(receivers: list[Receiver]) -> None:
    for one in receivers:
        one.discard()


class _Sink(Receiver):
    """What the form parser takes for a file: it goes back to its beginning when it has written all."""

    def seek(self, position: int) -> int:
        return position


class _Stream:
    """The body's pieces as the form parser reads them."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        given, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return given
