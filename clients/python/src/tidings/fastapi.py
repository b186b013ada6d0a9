"""FastAPI and Starlette: the route of a stream.

@app.get("/stream")
async def stream(request: Request, user: User = Depends(current_user)):
    return await tidings.fastapi.stream(request, "chat", f"user-{user.id}")
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ._asynchronous_server import chunks
from ._own_route import Grant, PassedOn, answer


async def stream(request: Request, *topics: str, **options: Any) -> Response:
    """The response that becomes a stream of these topics, private events included.

    Options: ``patterns``, ``since``, ``format``, ``hello``, ``expires`` (seconds), ``label`` (to
    revoke it by).
    """
    given = await asyncio.to_thread(answer, Grant(topics, **options), request.headers)
    body, headers = given.body, dict(given.headers)
    if not isinstance(body, PassedOn):
        return Response(body, given.status, headers)
    return StreamingResponse(chunks(body), given.status, headers)
