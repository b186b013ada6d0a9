"""The chat of https://stackoverflow.com/a/12236019 (2012) with private messages: "@Bob hello"
reaches Bob and its sender alone."""

import datetime
import os
from urllib.parse import quote

import flask
import tidings.flask

app = flask.Flask(__name__)
app.config.update(SECRET_KEY=os.environ.get("SECRET_KEY") or "change me", SESSION_COOKIE_SAMESITE="Lax")


def topic_of(user):
    return f"user-{quote(user, safe='')}"


@app.get("/stream")
def stream():
    user = flask.session.get("user") or flask.abort(403)
    return tidings.flask.stream("chat", topic_of(user), since="-50")


@app.post("/post")
def post():
    user, message = flask.session.get("user") or flask.abort(403), flask.request.form["message"]
    to = message.split()[0][1:] if message.startswith("@") else None
    topics = "chat" if to is None else list({topic_of(user), topic_of(to)})
    tidings.publish(topics, f"[{datetime.datetime.now():%H:%M:%S}] {user}: {message}", private=to is not None)
    return "", 204


@app.route("/", methods=["GET", "POST"])
def home():
    if flask.request.method == "POST":
        flask.session["user"] = flask.request.form["user"]
        return flask.redirect("/")
    return flask.render_template("chat.html", user=flask.session.get("user"))
