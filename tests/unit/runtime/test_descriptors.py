"""runtime.descriptors: the limit of file descriptors, in a process of its own: a hard limit cannot be raised again."""

import subprocess
import sys

import pytest

SHOW = "import resource; print(descriptors.within_reach(), *resource.getrlimit(resource.RLIMIT_NOFILE))"


def limits_after(soft: int, hard: int, code: str) -> list[int]:
    start = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"
    program = f"{start}\nfrom pointsman_server.runtime import descriptors\n{code}\n{SHOW}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(("wanted", "soft"), [(300, 300), (400, 400), (1000, 400), (100, 200)])
def test_the_soft_limit_is_raised_as_far_as_it_may_be(wanted: int, soft: int) -> None:
    assert limits_after(200, 400, f"descriptors.raise_limit({wanted})") == [400, soft, 400]


def test_nothing_is_raised_unasked() -> None:
    assert limits_after(200, 400, "") == [400, 200, 400]
