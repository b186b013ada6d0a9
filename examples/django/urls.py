"""A page that is notified when a worker, which could be Celery, has finished a report."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import tidings.django
import worker
from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import path

workers = ProcessPoolExecutor(1, get_context("spawn"))


def log_in(request):
    if request.method == "GET":
        return render(request, "login.html")
    login(request, get_user_model().objects.get_or_create(username=request.POST["user"])[0])
    return redirect("/")


@login_required
def report(request):
    workers.submit(worker.report, request.user.pk, request.user.username)
    return HttpResponse(status=204)


@login_required
def page(request):
    return render(request, "page.html")


urlpatterns = [
    path("", page),
    path("login", log_in),
    path("report", report),
    path("stream", tidings.django.user_stream, name="stream"),
]
