"""The chat of https://stackoverflow.com/a/12236019 (Peter Hoffmann, 2012) in Flask 3, without its
/stream: that is Tidings' now."""

import datetime
import os

import flask
import redis

app = flask.Flask(__name__)
app.config.update(SECRET_KEY=os.environ.get("SECRET_KEY") or os.urandom(32), SESSION_COOKIE_SAMESITE="Lax")
red = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost"))


@app.post("/post")
def post():
    user, message = flask.session.get("user", "anonymous"), flask.request.form["message"]
    now = datetime.datetime.now().replace(microsecond=0).time()
    red.publish("chat", f"[{now.isoformat()}] {user}: {message}")
    return "", 204


@app.route("/login", methods=["GET", "POST"])
def login():
    if flask.request.method == "POST":
        flask.session["user"] = flask.request.form["user"]
        return flask.redirect("/")
    return '<form method="post">Your name: <input name="user" autofocus></form>'


@app.get("/")
def home():
    if "user" not in flask.session:
        return flask.redirect("/login")
    stream = os.environ.get("STREAM_URL", "/stream")
    return flask.render_template("chat.html", user=flask.session["user"], stream=stream)
