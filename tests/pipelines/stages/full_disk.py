"""A data stage on a small disk that is full, then read-only: run by `test_full_disk.py` in a mount namespace.

/mnt is a tmpfs of 512 kB with a file `ballast` in the way; the pictures lie in sys.argv[1].
"""

import os
import subprocess
import sys
from dataclasses import replace

from kill_points import contents, in_this_process, run_once

from pipelines.dag import shards
from pipelines.stages.import_images import ImportImages, ImportImagesConfig


def attempt(config, root):
    try:
        run_once(ImportImages(config), {}, root)
    except RuntimeError as error:
        return str(error)
    return "done"


shards._stream, shards.RETRY_SECONDS = in_this_process, 0.0
first = ImportImagesConfig(folder=sys.argv[1], image_size=64, samples_per_shard=4)
print("full:", attempt(first, "/mnt/store"))
os.truncate("/mnt/ballast", 0)
print("free:", attempt(first, "/mnt/store"))
attempt(first, sys.argv[2])
print("equal:", contents("/mnt/store") == contents(sys.argv[2]) != {})
subprocess.run(["mount", "-o", "remount,ro", "/mnt"], check=True)
second = replace(first, jpeg_quality=20)
print("read-only:", attempt(second, "/mnt/store"))
subprocess.run(["mount", "-o", "remount,rw", "/mnt"], check=True)
print("writable:", attempt(second, "/mnt/store"))
