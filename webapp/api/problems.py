"""pydantic's findings as problems of the envelope: one per field, all at once."""

from typing import Annotated, Any, TypeVar

from flask import request
from pydantic import AfterValidator, BaseModel, ValidationError, WithJsonSchema

from webapp.leads.dedupe import checked_email
from webapp.leads.errors import Invalid, Problem

M = TypeVar("M", bound=BaseModel)


def _is_email(value: str) -> str:
    checked_email(value)
    return value  # as sent; intake keeps the normalised form beside it


Email = Annotated[str, AfterValidator(_is_email), WithJsonSchema({"type": "string", "format": "email"})]


def validated(model: type[M], data: Any, *, error: type[Invalid] = Invalid) -> M:
    """``data`` as ``model``; ``error`` (Invalid or a kind of it) with every problem when it does not fit."""
    try:
        return model.model_validate(data)
    except ValidationError as found:
        problems = tuple(
            Problem(".".join(str(part) for part in item["loc"]) or "body", item["msg"].removeprefix("Value error, "))
            for item in found.errors(include_url=False, include_context=False, include_input=False)
        )
        missing = all(item["type"] == "missing" for item in found.errors(include_url=False))
        raise error(
            "the request is not valid", code="missing_param" if missing else "invalid_param", details=problems
        ) from None


def query(model: type[M]) -> M:
    """The query parameters as ``model``. Invalid with every problem when they do not fit."""
    return validated(model, request.args.to_dict())
