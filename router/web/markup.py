"""HTML that is escaped unless it was made here.

Owns one rule: text becomes markup through `element` only, and `element` escapes every string
that is not markup already.  A page that is put together from its results cannot carry the
script of an AE title.
"""

import html


class Markup(str):
    """Text that is HTML already; made by `element` and `document`, never from data."""

    __slots__ = ()


_EMPTY = frozenset({"meta", "link", "br", "hr", "img", "input"})

Content = str | int | float


def text(value: Content) -> Markup:
    """The value with ``& < > " '`` as references."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def element(tag: str, *content: Content, **attributes: Content) -> Markup:
    """``<tag attributes>content</tag>``.

    A trailing underscore of an attribute is left out (``class_``), others become hyphens.
    """
    pairs = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
    )
    if tag in _EMPTY:
        return Markup(f"<{tag}{pairs}>")
    return Markup(f"<{tag}{pairs}>{''.join(text(part) for part in content)}</{tag}>")


def join(*parts: Content) -> Markup:
    """The parts one after the other, escaped as in `element`."""
    return Markup("".join(text(part) for part in parts))


def document(title: str, style: str, *body: Content, refresh: int = 0) -> Markup:
    """A whole page.  ``style`` is ours and goes in as it is: its hash is in the policy."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Markup(f"<style>{style}</style>"),
    ]
    if refresh:
        head.append(element("meta", http_equiv="refresh", content=refresh))
    return Markup(
        f'<!doctype html><html lang="en">{element("head", *head)}{element("body", *body)}</html>'
    )
