"""Put the root file system of the image together: Python, the packages, and the libraries that they load.

``python3 assemble.py ENVIRONMENT ROOT``, in the build stage of the Dockerfile, with the Python of the image. Everything
keeps its path under ROOT. Left out: a shell, a package manager, pip, symbols for debuggers, and the sources of all but
our own packages, which are there as bytecode: tracebacks name their files and lines, and show lines of ours alone.
"""

import compileall
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

OURS = ("pointsman", "pointsman_server")
# Of the standard library: tests, windows, what installs packages, and what compiles extensions.
STDLIB_LEFT_OUT = (
    "test",
    "idlelib",
    "turtledemo",
    "turtle.py",
    "tkinter",
    "lib2to3",
    "ensurepip",
    "pydoc_data",
    "site-packages",
    "config-*",
)
EXTENSIONS_LEFT_OUT = ("_tkinter*", "_test*", "xxlimited*", "_xxtestfuzz*", "_ctypes_test*", "*.a")
# Sources of compiled modules, stubs of types, and scripts of a shell that is not there.
FILES_LEFT_OUT = ("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.a", "activate*", "Activate*")
SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/debian_version",
    "/etc/protocols",
    "/etc/services",
)
# Loaded by name at run time: getaddrinfo's, and unwinding at the end of a thread.
LOADED_BY_NAME = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libgcc_s.so.1")
USER = "pointsman:x:10001:10001::/tmp:/usr/sbin/nologin\n"


class Image:
    """The root of the image, as it grows; a file keeps the path that it has here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.taken: set[Path] = set()

    def at(self, path: Path) -> Path:
        """Return the place of ``path`` in the image."""
        return self.root / path.relative_to("/")

    def add(self, path: Path) -> None:
        """Copy a file, and what it links to."""
        real = path.parent.resolve() / path.name
        if real in self.taken:
            return
        self.taken.add(real)
        target = self.at(real)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(real, target, follow_symlinks=False)
        if real.is_symlink():
            self.add(real.parent / real.readlink())

    def add_tree(self, directory: Path, left_out: Iterable[str]) -> None:
        """Copy a directory without what matches one of ``left_out``, and without bytecode."""
        ignored = shutil.ignore_patterns("__pycache__", *left_out)
        shutil.copytree(directory, self.at(directory), symlinks=True, ignore=ignored, dirs_exist_ok=True)

    def links(self, directories: Iterable[str]) -> None:
        """Make /lib and its like links into /usr, as they are here."""
        for name in directories:
            path = Path("/", name)
            if path.is_symlink():
                (self.root / name).symlink_to(path.readlink())


def python(image: Image) -> None:
    """Add the interpreter, its library and the standard library."""
    paths = sysconfig.get_paths()
    stdlib = Path(paths["stdlib"])
    image.add_tree(stdlib, STDLIB_LEFT_OUT + EXTENSIONS_LEFT_OUT)
    executable = Path(sys.executable).resolve()
    image.add(executable)
    library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME") or "")
    if library.is_file():
        image.add(library)
        # find_libpython looks for the name without a version too.
        image.at(library.parent.resolve()).joinpath(library.name.partition(".so")[0] + ".so").symlink_to(library.name)


def programs(image: Image) -> Iterator[Path]:
    """Yield the ELF files of the image."""
    for path in image.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def strip(path: Path) -> None:
    """Remove the symbols that only a debugger reads, where the file stays loadable."""
    draft = path.with_name(f"{path.name}.stripped")
    done = subprocess.run(["strip", "--strip-unneeded", "-o", draft, path], capture_output=True, check=False)
    if done.returncode == 0 and draft.stat().st_size < path.stat().st_size * 0.95:
        shutil.copymode(path, draft)
        draft.replace(path)
    draft.unlink(missing_ok=True)


def libraries(image: Image) -> None:
    """Add every library of the system that a file of the image is linked with, and the dynamic loader."""
    needed = {path for program in list(programs(image)) for path in linked(program)}
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    needed |= {
        Path(path)
        for name, path in re.findall(r"^\s*(\S+) .* => (\S+)$", cache, re.MULTILINE)
        if name in LOADED_BY_NAME
    }
    for path in sorted(needed):
        if not path.is_relative_to(image.root):
            image.add(path)
    # Where the loader looks beside its own directories: the official images keep libpython in /usr/local/lib.
    for path in (Path("/etc/ld.so.conf"), *Path("/etc/ld.so.conf.d").glob("*.conf")):
        image.add(path)
    subprocess.run(["/sbin/ldconfig", "-X", "-r", image.root], check=True)


def linked(program: Path) -> set[Path]:
    """Return the libraries that a program is linked with, by their paths here."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    if missing := re.findall(r"(\S+) => not found", listed):
        sys.exit(f"{program} needs {', '.join(missing)}")
    return {Path(path) for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listed, re.MULTILINE)}


def system(image: Image) -> None:
    """Add the files of the system that programs read, a user, and a writable /tmp."""
    for name in SYSTEM_FILES:
        if Path(name).exists():
            image.add(Path(name))
    (image.root / "etc/passwd").write_text(f"root:x:0:0:root:/root:/usr/sbin/nologin\n{USER}")
    (image.root / "etc/group").write_text("root:x:0:\npointsman:x:10001:\n")
    for name in ("dev", "proc", "sys", "tmp"):
        (image.root / name).mkdir(exist_ok=True)
    (image.root / "tmp").chmod(0o1777)


def owners(image: Image) -> None:
    """Keep the records of the Debian packages that files come from, where scanners look for them."""
    listed = subprocess.run(
        ["dpkg-query", "--search", *map(str, sorted(image.taken))], capture_output=True, text=True, check=False
    )
    names = {name.strip() for line in listed.stdout.splitlines() for name in line.partition(": ")[0].split(",")}
    directory = image.root / "var/lib/dpkg/status.d"
    directory.mkdir(parents=True)
    for name in sorted(names):
        record = subprocess.run(["dpkg-query", "--status", name], capture_output=True, text=True, check=True).stdout
        (directory / name.partition(":")[0]).write_text(record)
        notice = Path("/usr/share/doc", name.partition(":")[0], "copyright")
        if notice.exists():
            image.add(notice)


def bytecode(image: Image) -> None:
    """Compile everything; of packages that are not ours keep the bytecode alone."""
    options = {
        "quiet": 1,
        "stripdir": str(image.root),
        "prependdir": "/",
        "invalidation_mode": py_compile.PycInvalidationMode.UNCHECKED_HASH,
    }
    for source in image.root.rglob("*.py"):
        ours = any(f"/site-packages/{name}/" in str(source) for name in OURS)
        if not compileall.compile_file(source, legacy=not ours, **options):
            continue  # a template, or for another version of Python
        if not ours:
            source.unlink()


def main() -> None:
    """Put the image together."""
    environment, root = map(Path, sys.argv[1:])
    root.mkdir(parents=True, exist_ok=True)
    image = Image(root)
    image.links(("bin", "lib", "lib64", "sbin"))
    python(image)
    image.add_tree(environment, FILES_LEFT_OUT)
    for path in list(programs(image)):
        strip(path)
    libraries(image)
    system(image)
    owners(image)
    bytecode(image)


if __name__ == "__main__":
    main()
