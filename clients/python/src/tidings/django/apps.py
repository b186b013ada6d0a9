"""The application of ``INSTALLED_APPS``: with ``runserver`` the development hub starts before the
first request."""

from __future__ import annotations

import logging
import sys

from django.apps import AppConfig
from django.conf import settings

from .. import _client
from .._errors import TidingsError

_log = logging.getLogger("tidings")


class TidingsConfig(AppConfig):
    name = "tidings.django"
    label = "tidings"
    verbose_name = "Tidings"
    default = True

    def ready(self) -> None:
        # The parent of the reloader holds the hub too, so that an application that cannot be
        # imported does not end it.
        if settings.DEBUG and "runserver" in sys.argv[1:2]:
            try:
                _log.info("the hub is %s", _client.access().address)
            except TidingsError as error:
                sys.stderr.write(f"Tidings: {error}\n")
