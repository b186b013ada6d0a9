"""HTML for pages without JavaScript of their own: htmx and Turbo put what they receive into the
page."""

from __future__ import annotations

from html import escape


def turbo_stream(html: str, action: str, target: str | None, targets: str | None) -> str:
    """An element that tells Turbo where this HTML belongs
    (https://turbo.hotwired.dev/handbook/streams)."""
    where = {"target": target, "targets": targets}
    attributes = "".join(f' {name}="{escape(value)}"' for name, value in where.items() if value is not None)
    return f'<turbo-stream action="{escape(action)}"{attributes}><template>{html}</template></turbo-stream>'
