import os
import sys

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

import tidings.django

if not settings.configured:
    settings.configure(
        DEBUG=os.environ.get("DEBUG", "1") == "1",
        ROOT_URLCONF=__name__,
        SECRET_KEY="of a test",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["tidings.django"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )


def stream(request):
    return tidings.django.stream(request, "chat", "user-42", since="earliest", label="user-42")


async def astream(request):
    return await tidings.django.astream(request, "chat", "user-42", since="earliest", label="user-42")


def publish(request):
    tidings.django.publish("user-42", request.body, private=True)
    return HttpResponse(str(os.getpid()))


def ticket(request):
    return JsonResponse({"ticket": tidings.ticket("user-42"), "process": os.getpid()})


urlpatterns = [
    path("stream", stream, name="stream"),
    path("astream", astream),
    path("user-stream", tidings.django.user_stream),
    path("publish", publish),
    path("ticket", ticket),
]
application = get_wsgi_application()
asynchronous = get_asgi_application()

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
