"""Answers that arrive word by word: a page can be reloaded in the middle and misses nothing, and
others can watch."""

import asyncio
import secrets

import tidings.fastapi
from fastapi import BackgroundTasks, FastAPI, Form, Request
from fastapi.responses import FileResponse, RedirectResponse

app = FastAPI()


async def answer(run, question):
    """In place of a language model."""
    for word in f"You asked {question!r}, and this is the answer".split():
        await tidings.apublish(run, word, type="token")
        await asyncio.sleep(0.05)
    await tidings.apublish(run, "", type="end")


@app.post("/ask")
async def ask(background: BackgroundTasks, question: str = Form()):
    run = f"run-{secrets.token_urlsafe(16)}"
    background.add_task(answer, run, question)
    return RedirectResponse(f"/?run={run}", 303)


@app.get("/stream")
async def stream(request: Request, run: str):
    return await tidings.fastapi.stream(request, run, since="earliest")


@app.get("/")
def page():
    return FileResponse("page.html")
