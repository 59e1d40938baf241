"""A certificate authority for one cluster, and the certificates it issues, with openssl."""

import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError

__all__ = ["Authority", "KeyPair", "SigningKey"]

_DAYS = "3650"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A certificate and its private key, both PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A private key and its public half, both PEM files."""

    private: Path
    public: Path


class Authority:
    """Issues into one directory; what is there already is used again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.ca = self._pair("ca")
        if not self.ca.cert.exists():
            self._openssl(
                "req", "-x509", "-new", *_NEW_KEY, "-days", _DAYS, "-subj", "/CN=llamamodel-cluster",
                "-keyout", str(self.ca.key), "-out", str(self.ca.cert),
            )  # fmt: skip

    def client(self, name: str, *, user: str, group: str = "") -> KeyPair:
        """A certificate by which the API server knows a user and one group."""
        subject = (f"/O={group}" if group else "") + f"/CN={user}"
        return self._issue(name, subject=subject, extensions=["extendedKeyUsage=clientAuth"])

    def server(self, name: str, *, hosts: Sequence[str]) -> KeyPair:
        """A certificate for a server under these names and IP addresses."""
        kinds = ((host, "IP" if host[0].isdigit() else "DNS") for host in hosts)
        names = ",".join(f"{kind}:{host}" for host, kind in kinds)
        extensions = ["extendedKeyUsage=serverAuth", f"subjectAltName={names}"]
        return self._issue(name, subject=f"/CN={name}", extensions=extensions)

    def signing_key(self, name: str) -> SigningKey:
        """A key pair for service account tokens."""
        private, public = (self._directory / f"{name}.{suffix}" for suffix in ("key", "pub"))
        if not public.exists():
            curve = "ec_paramgen_curve:prime256v1"
            self._openssl("genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", str(private))
            self._openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
        return SigningKey(private=private, public=public)

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(cert=self._directory / f"{name}.crt", key=self._directory / f"{name}.key")

    def _issue(self, name: str, *, subject: str, extensions: Sequence[str]) -> KeyPair:
        pair = self._pair(name)
        if pair.cert.exists():
            return pair
        request, extras = (self._directory / f"{name}.{suffix}" for suffix in ("csr", "ext"))
        extras.write_text("\n".join(["basicConstraints=CA:FALSE", *extensions]) + "\n")
        self._openssl(
            "req", "-new", *_NEW_KEY, "-subj", subject,
            "-keyout", str(pair.key), "-out", str(request),
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", str(request), "-out", str(pair.cert), "-days", _DAYS, "-sha256",
            "-CA", str(self.ca.cert), "-CAkey", str(self.ca.key),
            "-set_serial", f"0x{secrets.token_hex(8)}", "-extfile", str(extras),
        )  # fmt: skip
        request.unlink()
        extras.unlink()
        return pair

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, umask=0o077)
        if done.returncode:
            raise ClusterError(f"openssl {arguments[0]} failed:\n{done.stderr.strip()}")
