"""PROXY headers, good ones and the vectors, and the clients that they name."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from mailgw.wire.proxy import Client

VECTORS = Path(__file__).parents[1] / "vectors" / "proxy" / "vectors.json"
CASES = {case["id"]: case for case in json.loads(VECTORS.read_text("utf-8"))["cases"]}

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n"
V2 = bytes.fromhex(CASES["P21"]["hex"])
V2_IPV6 = (
    SIGNATURE
    + b"\x21\x21\x00\x24"
    + ipaddress.ip_address("2001:db8::7").packed
    + ipaddress.ip_address("2001:db8:1::25").packed
    + b"\x9c\x40\x00\x19"
)
LOCAL = bytes.fromhex(CASES["P23"]["hex"])
UNKNOWN = b"PROXY UNKNOWN\r\n"
# What HAProxy 2.6 sent with `proxy-v2-options crc32c,unique-id`: the checksum comes first.
GENUINE = bytes.fromhex(
    "0d0a0d0a000d0a515549540a2111001a7f0000017f000001904c9543030004f5a3ab3c0500042d2d2d78"
)

CLIENT = Client("192.0.2.7", 40000, "198.51.100.1", 25)
CLIENT_IPV6 = Client("2001:db8::7", 40000, "2001:db8:1::25", 25)
