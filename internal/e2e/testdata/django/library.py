"""A Django site that caches as such sites do, in one file.

It knows nothing of Walkey: the cache is emptied by signals. `library.py migrate` makes the tables, `library.py serve PORT`
answers, `library.py run CODE` runs Python with everything below at hand.
"""

import os
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="for the test alone",
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    TIME_ZONE="UTC",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ.get("PGHOST", "127.0.0.1"),
            "PORT": os.environ.get("PGPORT", "5432"),
            "USER": "postgres",
            "NAME": "postgres",
        }
    },
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ.get("CACHE_URL", "redis://127.0.0.1:6379/0"),
            "KEY_PREFIX": "bloodofjesus",
            "TIMEOUT": 300,
            "OPTIONS": {
                "CLIENT_CLASS": "django_redis.client.DefaultClient",
                "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
                "IGNORE_EXCEPTIONS": True,
            },
        }
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SESSION_CACHE_ALIAS="default",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
)
django.setup()

from django.core.cache import cache  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.db.models.signals import post_delete, post_save  # noqa: E402
from django.dispatch import receiver  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.cache import cache_page  # noqa: E402

CACHE_LISTS = 60 * 60


class Material(models.Model):
    title = models.CharField(max_length=200)
    description = models.TextField(default="")
    material_type = models.CharField(max_length=100, default="")
    icon_name = models.CharField(max_length=100, default="")
    file = models.CharField(max_length=200, default="")
    is_active = models.BooleanField(default=True)

    class Meta:
        app_label = "main"


def get_or_set_cache(key, load, timeout=300):
    value = cache.get(key)
    if value is None:
        value = load()
        cache.set(key, value, timeout)
    return value


@receiver([post_save, post_delete], sender=Material)
def invalidate_materials_cache(**kwargs):
    cache.delete("materials_list_active")


def titles():
    return list(Material.objects.filter(is_active=True).order_by("id").values_list("title", flat=True))


def materials(request):
    return JsonResponse({"titles": get_or_set_cache("materials_list_active", titles, CACHE_LISTS)})


@cache_page(CACHE_LISTS)
def page(request):
    return JsonResponse({"titles": titles()})


def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


urlpatterns = [path("materials/", materials), path("page/", page), path("visit/", visit)]


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


if sys.argv[1] == "migrate":
    with connection.schema_editor() as editor:
        editor.create_model(Material)
elif sys.argv[1] == "serve":
    make_server("127.0.0.1", int(sys.argv[2]), get_wsgi_application(), handler_class=Quiet).serve_forever()
else:
    exec(sys.argv[2])
