"""Markdown on pages: the text of a follow-up task, by whomever it was written.

HTML in it is shown as the text that it is, a picture as its description; a link leads to the web, to a mailbox or to a
telephone, or is text.
"""

import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

_LEADS_TO = re.compile(r"(?:https?://|mailto:|tel:)", re.IGNORECASE)
#: What ``##`` becomes, and ``#`` too: below the headings of the page's sections.
_TOP = 4


def _heading(self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    level = min(6, max(_TOP, int(tokens[at].tag[1:]) + _TOP - 2))
    return f"<h{level}>" if tokens[at].nesting == 1 else f"</h{level}>\n"


def _link(self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    tokens[at].attrSet("rel", "noopener noreferrer nofollow")
    return self.renderToken(tokens, at, options, env)


def _picture(self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    return str(escape(tokens[at].content))


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True})
    rules: dict[str, Any] = {"heading_open": _heading, "heading_close": _heading, "link_open": _link, "image": _picture}
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    parser.validateLink = lambda url: _LEADS_TO.match(url) is not None  # type: ignore[method-assign]
    return parser


_PARSER = _parser()


def markdown(text: str) -> Markup:
    """``text`` as HTML that is safe to show."""
    return Markup(_PARSER.render(text))
