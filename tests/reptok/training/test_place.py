import resource
import subprocess
import sys


def test_a_worker_opens_as_many_files_as_the_system_allows():
    program = """
import resource
from reptok.training.place import raise_file_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
raise_file_limit()
files = [open("/dev/null") for _ in range(200)]
print(len(files), resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["200", "True"], done.stderr[-1000:]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 200
