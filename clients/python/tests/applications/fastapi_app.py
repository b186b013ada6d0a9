import os

from fastapi import FastAPI, Request

import tidings.fastapi

app = FastAPI()


@app.get("/stream")
async def stream(request: Request):
    return await tidings.fastapi.stream(request, "chat", "user-42", since="earliest", label="user-42")


@app.post("/publish")
async def publish(request: Request):
    await tidings.apublish("user-42", await request.body(), private=True)
    return os.getpid()


@app.get("/ticket")
def ticket():
    return {"ticket": tidings.ticket("user-42"), "process": os.getpid()}
