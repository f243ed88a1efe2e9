"""Put a Consul binary at the given path: the one on PATH, else Debian's package, unpacked there.

Nothing is installed and no root is needed. The package comes from the archive that this machine's own
apt sources name, from the bullseye suite (Consul 1.8.7), and is checked against the suite's index.

usage: fetch_consul.py TARGET
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

SUITE = "bullseye"
PACKAGE = "consul"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386"}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if found := shutil.which("consul"):
        target.symlink_to(found)
        print(f"== Consul: using {found}")
        return
    print(f"== Consul: unpacking Debian's package of the {SUITE} suite (about 35 MB, once)", flush=True)
    binary = consul_from_debian(ARCHITECTURES.get(platform.machine(), platform.machine()))
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as out:
        out.write(binary)
    os.chmod(out.name, 0o755)
    os.replace(out.name, target)


def consul_from_debian(architecture: str) -> bytes:
    problems = []
    for archive in archives():
        try:
            filename, sha256 = find_package(archive, architecture)
            package = fetch(f"{archive}/{filename}")
        except (OSError, LookupError) as error:
            problems.append(f"  {archive}: {error}")
            continue
        if hashlib.sha256(package).hexdigest() != sha256:
            problems.append(f"  {archive}/{filename}: does not match the index's SHA256")
            continue
        return unpack(package)
    sys.exit(
        "cannot fetch Consul from Debian's archive; install a `consul` binary on PATH instead\n"
        + "\n".join(problems)
    )


def archives() -> list[str]:
    """Debian archive addresses from apt's sources, in both formats, in order and without repeats."""
    texts = [path.read_text() for path in sorted(Path("/etc/apt").glob("sources.list"))]
    texts += [
        path.read_text() for path in sorted(Path("/etc/apt/sources.list.d").glob("*")) if path.is_file()
    ]
    found: dict[str, None] = {}
    for line in "\n".join(texts).splitlines():
        if match := re.match(r"\s*(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(.*)", line):
            for word in match[1].split():
                if "://" in word and word.rstrip("/").endswith("/debian"):
                    found[word.rstrip("/")] = None
    if not found:
        sys.exit("no Debian archive in /etc/apt/sources.list*; install a `consul` binary on PATH instead")
    return list(found)


def find_package(archive: str, architecture: str) -> tuple[str, str]:
    """The path and SHA256 of the package, from the suite's index, itself checked against Release."""
    release = fetch(f"{archive}/dists/{SUITE}/Release").decode()
    index = f"main/binary-{architecture}/Packages.xz"
    match = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(index)}$", release, re.M)
    if not match:
        raise LookupError(f"{SUITE} has no {index}")
    packed = fetch(f"{archive}/dists/{SUITE}/{index}")
    if hashlib.sha256(packed).hexdigest() != match[1]:
        raise LookupError(f"{index} does not match Release")
    for block in lzma.decompress(packed).decode().split("\n\n"):
        if block.startswith(f"Package: {PACKAGE}\n"):
            fields = dict(re.findall(r"^([\w-]+): (.*)$", block, re.M))
            return fields["Filename"], fields["SHA256"]
    raise LookupError(f"{SUITE} has no package {PACKAGE} for {architecture}")


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=120) as answer:
        body: bytes = answer.read()
        return body


def unpack(package: bytes) -> bytes:
    """``/usr/bin/consul`` out of a .deb: an ar archive whose member data.tar.* holds the files."""
    at = 8  # after the "!<arch>\n" of an ar archive
    while at < len(package):
        header = package[at : at + 60]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(package[at + 60 : at + 60 + size])) as files:
                member = files.extractfile("./usr/bin/consul")
                if member is None:
                    break
                return member.read()
        at += 60 + size + size % 2
    sys.exit("Debian's package holds no /usr/bin/consul")


if __name__ == "__main__":
    main()
