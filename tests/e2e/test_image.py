"""What the image holds, put together by the program that its Dockerfile runs, checked by that of `make image-check`.

The Python is the one of the tests. To build the image itself takes a builder of images: docs/releasing.md.
"""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.tools import CACHE, UV, require

ROOT = Path(__file__).parents[2]
PROGRAMS = ("strip", "ldconfig", "dpkg-query", "unshare", "setpriv")
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def load(name: str) -> ModuleType:
    """Load a program of deploy/image."""
    spec = importlib.util.spec_from_file_location(f"image_{name}", ROOT / f"deploy/image/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load("check")


INSTALL = """
uv=$1 python=$2 directory=$3 repository=$4
"$uv" venv -q --python "$python" "$directory/environment"
cd "$repository"
"$uv" pip install -q --python "$directory/environment/bin/python" --constraint requirements.lock \\
    "pointsman[cli] @ file://$repository/clients/python" "pointsman-server[envoy] @ file://$repository"
"$python" deploy/image/assemble.py "$directory/environment" "$directory/root"
"""


@pytest.fixture(scope="module")
def container() -> Iterator[Any]:
    """Runs commands in an image with both transports."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    require("root on a Debian machine", not missing and os.geteuid() == 0, ", ".join(missing))
    directory = CACHE.resolve() / "image" / f"test-{os.getpid()}"
    directory.mkdir(parents=True)
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    try:
        install = ["sh", "-ec", INSTALL, "sh", str(UV), str(python), str(directory), str(ROOT)]
        subprocess.run(install, check=True, timeout=300, env=os.environ | {"PATH": SYSTEM_PATH})
        yield check.Container(directory / "root", {"PATH": f"{directory}/environment/bin", "LANG": "C.UTF-8"})
    finally:
        shutil.rmtree(directory)


class TestTheImage:
    @pytest.mark.parametrize("transport", ["envoy", "grpcio"])
    def test_serves_read_only_as_any_user_and_ends_with_0(self, container: Any, transport: str) -> None:
        assert check.check_server(container, transport) == []

    def test_has_every_library_that_our_modules_load(self, container: Any) -> None:
        assert check.check_commands(container) == []

    def test_is_run_without_rights_and_cannot_be_written_to(self, container: Any) -> None:
        script = "import os; open('/tmp/x', 'w'); print(os.getuid(), os.getgroups()); open('/x', 'w')"
        output, _ = container.start(["python", "-c", script], {}).communicate(timeout=60)
        assert f"{check.ANYBODY} []\n" in output
        assert "Read-only file system: '/x'" in output

    def test_keeps_the_sources_of_our_packages_alone(self, container: Any) -> None:
        (site,) = container.root.glob("**/environment/lib/python3.*/site-packages")
        assert {path.relative_to(site).parts[0] for path in site.rglob("*.py")} == {"pointsman", "pointsman_server"}
        assert (site / "grpc/__init__.pyc").exists()

    def test_holds_no_shell_and_nothing_that_installs_packages(self, container: Any) -> None:
        assert not [name for name in check.SHELLS if (container.root / name).exists()]
        assert not [path for name in ("pip", "ensurepip") for path in container.root.rglob(name)]


class TestCheck:
    def archive(self, path: Path, files: dict[str, bytes], *, size: int = 0) -> Path:
        """Write an OCI archive of one layer, as builders do, beside an attestation as buildx adds it."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            for name, content in {**files, "padding": os.urandom(size)}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        blobs: dict[str, bytes] = {}

        def keep(content: bytes, **more: Any) -> dict[str, Any]:
            digest = hashlib.sha256(content).hexdigest()
            blobs[f"blobs/sha256/{digest}"] = content
            return {"digest": f"sha256:{digest}", "size": len(content), **more}

        config = keep(json.dumps({"config": {"Env": ["PATH=/opt/pointsman/bin"]}}).encode())
        manifest = {"config": config, "layers": [keep(gzip.compress(layer.getvalue(), compresslevel=1))]}
        attestation = keep(b'{"layers": []}', platform={"os": "unknown", "architecture": "unknown"})
        index = {"manifests": [attestation, keep(json.dumps(manifest).encode())]}
        nested = {"manifests": [keep(json.dumps(index).encode())]}
        with tarfile.open(path, "w") as tar:
            for name, content in {**blobs, "index.json": json.dumps(nested).encode()}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return path

    def test_measures_what_a_registry_keeps_and_what_lies_on_a_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(check, "LIMITS", {"grpcio": (1, 1)})
        with check.unpacked(self.archive(tmp_path / "small", {}, size=900_000)) as archive:
            assert check.check_size(archive) == ("grpcio", [])
        with check.unpacked(self.archive(tmp_path / "large", {}, size=1_200_000)) as archive:
            assert check.check_size(archive)[1] == [
                "1.2 MB compressed, of at most 1",
                "1.2 MB unpacked, of at most 1",
            ]

    def test_knows_the_image_with_envoy_and_finds_a_shell(self, tmp_path: Path) -> None:
        files = {"opt/pointsman/lib/python3.13/site-packages/pyvoy": b"", "bin/sh": b"#!"}
        with check.unpacked(self.archive(tmp_path / "archive", files)) as archive:
            assert check.check_size(archive) == ("envoy", [])
            assert check.check_content(archive) == ["the image holds /bin/sh"]
            assert archive.environment() == {"PATH": "/opt/pointsman/bin"}
