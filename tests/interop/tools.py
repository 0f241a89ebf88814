"""Programs of other projects that these tests need.

Without one a test is skipped, unless DCMROUTER_REQUIRE_INTEROP=1 says that all must be here:
then it fails, so that no run can pass by leaving everything out.
"""

import os
import shutil

import pytest

REQUIRED = os.environ.get("DCMROUTER_REQUIRE_INTEROP") == "1"

ENVIRONMENT = {"TCP_NODELAY": "1"}
"""For every process of DCMTK and Orthanc: else Nagle's algorithm delays each response 40 ms."""


def need(condition: object, what: str) -> None:
    """Skip the test, or fail it where everything is required, unless `condition` holds."""
    if condition:
        return
    if REQUIRED:
        pytest.fail(f"{what}, and DCMROUTER_REQUIRE_INTEROP=1 allows no test to be skipped")
    pytest.skip(what)


def require(name: str) -> str:
    """Path of a program; Debian keeps Orthanc where only root looks."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    need(path, f"{name} is not installed")
    return str(path)
