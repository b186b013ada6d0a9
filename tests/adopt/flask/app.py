"""A shop: customers order, the shop ships. Log in as the name that you enter; "shop" is the shop."""

import os
from functools import wraps

from flask import Flask, abort, redirect, render_template, request, session, url_for

app = Flask(__name__)
app.secret_key = "change me"
orders = []


def login_required(view):
    @wraps(view)
    def checked(*args, **kwargs):
        return view(*args, **kwargs) if "user" in session else redirect(url_for("login"))

    return checked


@app.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        session.clear()
        session["user"] = request.form["user"]
        return redirect(url_for("index"))
    return render_template("login.html")


@app.get("/")
@login_required
def index():
    return render_template(
        "index.html", orders=[order for order in orders if order["user"] == session["user"]]
    )


@app.post("/orders")
@login_required
def create():
    orders.append(
        {"id": len(orders), "user": session["user"], "item": request.form["item"], "state": "ordered"}
    )
    return redirect(url_for("index"))


@app.post("/orders/<int:number>/ship")
@login_required
def ship(number):
    if session["user"] != "shop":
        abort(403)
    order = orders[number] if number < len(orders) else abort(404)
    order["state"] = "shipped"
    return "", 204


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), debug=True)
