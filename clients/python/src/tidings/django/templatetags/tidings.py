"""``{% load tidings %}``: the page's end of a stream."""

from __future__ import annotations

from typing import Any

from django import template
from django.urls import reverse
from django.utils.html import escapejs
from django.utils.safestring import SafeString, mark_safe

from ... import ticket as make_ticket

register = template.Library()


@register.simple_tag
def event_source(route: str, *args: Any, **kwargs: Any) -> SafeString:
    """``const events = {% event_source 'stream' %};`` with the name of the view of the stream, or
    its path."""
    path = route if route.startswith("/") else reverse(route, args=args, kwargs=kwargs)
    return mark_safe(f'new EventSource("{escapejs(path)}")')


@register.simple_tag
def ticket(*topics: str, **terms: Any) -> str:
    """``{% ticket 'chat' label='user-42' as ticket %}``: for a hub on another origin."""
    return make_ticket(topics, **terms)
