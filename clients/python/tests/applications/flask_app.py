import os

import flask

import tidings.flask

app = flask.Flask(__name__)


@app.get("/stream")
def stream():
    return tidings.flask.stream("chat", "user-42", since="earliest", label="user-42")


@app.post("/publish")
def publish():
    tidings.publish("user-42", flask.request.get_data(), private=True)
    return str(os.getpid())


@app.get("/ticket")
def ticket():
    return {"ticket": tidings.ticket("user-42"), "process": os.getpid()}
