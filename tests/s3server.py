"""A private server that speaks S3, for the tests: moto's, in a process of its own.

It lives in `.cache/s3-server` (scripts/test makes it) and keeps everything in memory. It
checks who signed a request: the login is made through its own IAM, before that begins.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

from ports import KeptPort
from rabbitmq import wait_until

PROGRAM = Path(__file__).parents[1] / ".cache" / "s3-server" / "bin" / "moto_server"
REGION = "us-east-1"


class S3:
    """One server at `endpoint`, and a login that it takes."""

    def __init__(self) -> None:
        self._kept = KeptPort()
        self.port = self._kept.number
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.access_key = self.secret_key = ""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as we
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        assert PROGRAM.exists(), f"there is no {PROGRAM} (scripts/test makes it)"
        self._process = subprocess.Popen(
            [PROGRAM, "-H", "127.0.0.1", "-p", str(self.port)],
            env={"PATH": os.environ["PATH"], "MOTO_S3_CUSTOM_ENDPOINTS": self.endpoint},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        wait_until(self._answers, "the S3 server answers", 60)
        self._admit()

    def bucket(self) -> str:
        """A new bucket, empty."""
        name = f"bodies-{uuid.uuid4().hex[:12]}"
        # It stumbles, with a 500, over what it does for others at the same moment.
        wait_until(lambda: self._makes(name), "the S3 server makes a bucket", 60)
        return name

    def _makes(self, bucket: str) -> bool:
        # One request that nobody is asked about, and from then on every signature counts.
        self._open("/moto-api/reset-auth", b"1")
        try:
            self._open(f"/{bucket}", b"", "PUT", service="s3")
        except urllib.error.HTTPError as error:
            # 409: it was made all the same, since nobody else has that name.
            if error.code not in (409, 500):
                raise
            return error.code == 409
        return True

    def address(self, bucket: str, *, secret: str | None = None, options: str = "") -> str:
        """What storage-address is for one of its buckets."""
        secret = urllib.parse.quote(secret or self.secret_key, safe="")
        return (
            f"s3://{self.access_key}:{secret}@{REGION}/{bucket}?endpoint={self.endpoint}{options}"
        )

    def freeze(self) -> None:
        """From now on connections are taken by the kernel, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
        self._kept.close()
        self._log.close()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            self._log.seek(0)
            raise RuntimeError(f"it ended by itself:\n{self._log.read()[-2000:].decode()}")
        try:
            self._open("/moto-api/data.json")
        except OSError:
            return False
        return True

    def _admit(self) -> None:
        """Make a user who may do everything."""
        user = f"user-{uuid.uuid4().hex[:8]}"
        policy = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        version = "&Version=2010-05-08"
        self._open("/", f"Action=CreateUser&UserName={user}{version}".encode())
        document = urllib.parse.quote(json.dumps({"Version": "2012-10-17"} | policy))
        self._open(
            "/",
            f"Action=PutUserPolicy&UserName={user}&PolicyName=all"
            f"&PolicyDocument={document}{version}".encode(),
        )
        made = self._open("/", f"Action=CreateAccessKey&UserName={user}{version}".encode())
        found = dict(re.findall(r"<(AccessKeyId|SecretAccessKey)>([^<]+)<", made.decode()))
        self.access_key, self.secret_key = found["AccessKeyId"], found["SecretAccessKey"]

    def _open(
        self, path: str, body: bytes | None = None, method: str | None = None, service: str = "iam"
    ) -> bytes:
        credential = f"{self.access_key or 'x'}/20260101/{REGION}/{service}/aws4_request"
        headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={credential}"}
        if path != "/":  # only the calls of IAM are forms
            headers["Content-Type"] = "application/octet-stream"
        request = urllib.request.Request(self.endpoint + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()  # type: ignore[no-any-return]  # has no types
