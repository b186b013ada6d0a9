"""A shop: customers order, the shop ships. Log in as the name that you enter; "shop" is the shop."""

from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from .models import Order


def log_in(request):
    if request.method == "POST":
        user, _ = get_user_model().objects.get_or_create(username=request.POST["user"])
        login(request, user)
        return redirect("/")
    return render(request, "login.html")


@login_required
def index(request):
    return render(request, "index.html", {"orders": request.user.orders.all()})


@login_required
@require_POST
def create(request):
    request.user.orders.create(item=request.POST["item"])
    return redirect("/")


@login_required
@require_POST
def ship(request, number):
    if request.user.username != "shop":
        return HttpResponse(status=403)
    order = get_object_or_404(Order, pk=number)
    order.state = "shipped"
    order.save()
    return HttpResponse(status=204)
