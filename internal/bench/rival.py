"""What Walkey's list is measured beside: the same rows by Django, kept by django-redis as such sites do. For gunicorn: rival:application."""

import os

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="for the benchmark alone",
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": os.environ["PGPORT"], "USER": "postgres", "NAME": "postgres"}},
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["CACHE_URL"],
            "KEY_PREFIX": "rival",
            "OPTIONS": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"},
        }
    },
)
django.setup()

from django.core.cache import cache  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import models  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402


class Material(models.Model):
    title = models.TextField()
    description = models.TextField()
    material_type = models.TextField()
    icon_name = models.TextField()
    file = models.TextField()
    is_active = models.BooleanField()

    class Meta:
        app_label = "main"
        db_table = "materials"
        managed = False


def materials(request):
    rows = cache.get("materials_list_active")
    if rows is None:
        columns = ("id", "title", "description", "material_type", "icon_name", "file")
        rows = list(Material.objects.filter(is_active=True).order_by("id").values(*columns))
        cache.set("materials_list_active", rows, 3600)
    return JsonResponse({"materials": rows})


urlpatterns = [path("api/materials/", materials)]
application = get_wsgi_application()
