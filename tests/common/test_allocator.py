"""Freed memory is reused, unless the user has decided otherwise."""

import os
import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from common.allocator import keep_freed_memory
print(keep_freed_memory())
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(50_000_000, np.uint8)
before = faults()
for _ in range(5):
    np.ones(50_000_000, np.uint8)
print(faults() - before)
"""


def run(**variables: str) -> list[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    environment.pop("GLIBC_TUNABLES", None)
    # No huge pages, so that pages are counted one by one.
    environment |= {"NUMPY_MADVISE_HUGEPAGE": "0"} | variables
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""),
    reason="glibc only",
)
def test_large_arrays_take_the_place_of_freed_ones() -> None:
    done, faults = run()
    assert done == "True" and int(faults) < 5_000  # five fresh arrays have 61,000 pages


def test_a_choice_of_the_user_stands() -> None:
    done, faults = run(MALLOC_MMAP_THRESHOLD_="131072")
    assert done == "False" and int(faults) > 50_000
