"""A listener of the brokers with TLS and SCRAM, as clusters have it that are not one's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from testbed.packages import Unavailable

USER: Final = "eventmill"
PASSWORD: Final = "not-to-be-shown"
MECHANISM: Final = "SCRAM-SHA-512"
#: For ``kafka-storage format``, which makes the user.
SCRAM: Final = f"{MECHANISM}=[name={USER},password={PASSWORD}]"
_STORE: Final = "keystore.p12"


class Secure:
    """A certificate of its own for 127.0.0.1, in ``folder``. Raises ``Unavailable`` without the JDK's keytool."""

    def __init__(self, folder: Path) -> None:
        tool = shutil.which("keytool")
        if tool is None:
            raise Unavailable("keytool is missing: it comes with the JDK")
        self._store, self.certificate = folder / _STORE, folder / "certificate.pem"
        access = ["-keystore", str(self._store), "-storepass", PASSWORD, "-alias", "broker"]
        names = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1"]
        self._run([tool, "-genkeypair", *access, "-keyalg", "EC", "-validity", "2", "-storetype", "PKCS12", *names])
        self.certificate.write_text(self._run([tool, "-exportcert", "-rfc", *access]))

    @staticmethod
    def _run(command: list[str]) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    @property
    def broker(self) -> dict[str, str]:
        """Broker properties of the listener SECURE."""
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            "listener.name.secure.ssl.keystore.location": str(self._store),
            "listener.name.secure.ssl.keystore.type": "PKCS12",
            "listener.name.secure.ssl.keystore.password": PASSWORD,
            "listener.name.secure.ssl.key.password": PASSWORD,
            "listener.name.secure.sasl.enabled.mechanisms": MECHANISM,
            f"listener.name.secure.{MECHANISM.lower()}.sasl.jaas.config": login,
        }

    def client(self, password: str = PASSWORD) -> tuple[str, ...]:
        """What ``kafka.properties`` takes."""
        return (
            "security.protocol=SASL_SSL", f"sasl.mechanism={MECHANISM}", f"sasl.username={USER}",
            f"sasl.password={password}", f"ssl.ca.location={self.certificate}",
        )  # fmt: skip
