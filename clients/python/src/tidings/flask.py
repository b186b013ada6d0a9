"""Flask: the route of a stream.

@app.get("/stream")
@login_required
def stream():
    return tidings.flask.stream("chat", f"user-{current_user.id}")
"""

from __future__ import annotations

from typing import Any

import flask

from ._own_route import Grant, PassedOn, answer


def stream(*topics: str, **options: Any) -> flask.Response:
    """The response that becomes a stream of these topics, private events included.

    Options: ``patterns``, ``since``, ``format``, ``hello``, ``expires`` (seconds), ``label`` (to
    revoke it by).
    """
    given = answer(Grant(topics, **options), flask.request.headers)
    body = given.body
    response = flask.Response(body, given.status, dict(given.headers))
    if isinstance(body, PassedOn):
        response.call_on_close(body.close)
    return response
