"""What Walkey is measured beside: the same rows by Django, kept by django-redis and deleted by the writer, as such sites do.

For gunicorn: rival:application. By itself, `rival.py hit SECONDS`, `cold`, `commit` or `delete NUMBER` prints figures.
"""

import os
import sys
import time

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
from django.db import models, transaction  # noqa: E402
from django.db.models import F  # noqa: E402
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


def average(seconds, call):
    """Calls over and over, and gives the microseconds of one call. The first one connects."""
    call(-1)
    began, calls = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        call(calls)
        calls += 1
    return [took / calls * 1e6]


def hit(seconds):
    cache.set("hit", bytes(1024), 3600)
    return average(seconds, lambda n: cache.get("hit"))


def cold(seconds):
    run = os.getpid()

    def read(n):
        key = f"cold:{run}:{n}"
        if cache.get(key) is None:
            row = Material.objects.filter(id=n % 200 + 1, is_active=True).values_list("id", "title", "description").get()
            cache.set(key, row, 3600)

    return average(seconds, read)


def commit(seconds):
    """What a signal's receiver does once the writer's COMMIT has returned: its p50 and p99."""
    took, ends = [], time.perf_counter() + seconds
    while time.perf_counter() < ends:
        cache.set("material:1", "x", 3600)
        with transaction.atomic():
            Material.objects.filter(id=1).update(title=F("title"))
            transaction.on_commit(lambda: took.append(time.perf_counter()))
            transaction.on_commit(lambda: cache.delete("material:1"))
        took[-1] = (time.perf_counter() - took[-1]) * 1e6
    took.sort()
    return [took[len(took) // 2], took[len(took) * 99 // 100]]


def delete(n):
    """Deletes keys that the benchmark has stored, and gives when it began, in seconds of the machine's clock."""
    keys = [f"material:{i:08d}" for i in range(int(n))]
    cache.get("connected")
    began = time.time()
    cache.delete_many(keys)
    return [f"{began:.6f}"]


if __name__ == "__main__":
    print(*globals()[sys.argv[1]](float(sys.argv[2])))
