from django.urls import path

from . import views

urlpatterns = [
    path("", views.index),
    path("login", views.log_in),
    path("orders", views.create),
    path("orders/<int:number>/ship", views.ship),
]
