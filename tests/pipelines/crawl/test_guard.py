"""Which addresses are public, and what the guard opens."""

from __future__ import annotations

import asyncio
import socket

import pytest

from pipelines.crawl.guard import AddressGuard, AddressRefused, is_public


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


PRIVATE = """
    0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.31.0.1 192.0.0.1 192.168.1.1 198.18.0.1
    192.0.0.192 192.31.196.1 192.52.193.1 192.88.99.1 192.175.48.1 168.63.129.16 203.0.113.1 224.0.0.1
    239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:8.8.8.8 64:ff9b::808:808 100::1 2001::1
    2001:db8::1 2001:1::1 2620:4f:8000::1 3fff::1 2002:808:808:: fc00::1 fe80::1 fe80::1%eth0 fec0::1
    ff02::1 2606:2800::1%eth0 localhost 1.1.1 1.1.1.1:80
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_an_override_opens_its_own_address_and_port_and_no_other() -> None:
    guard = AddressGuard({"Photos.Test": "127.0.0.1:4321"})
    (found,) = asyncio.run(guard.resolve("photos.test.", 80))
    assert (found["host"], found["port"]) == ("127.0.0.1", 4321)
    guard.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 4321))).close()
    for target in (("127.0.0.1", 4322), ("127.0.0.2", 4321), ("10.0.0.1", 80)):
        with pytest.raises(AddressRefused):
            guard.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", target))


def test_an_override_must_name_a_numeric_address_and_a_port() -> None:
    for place in ("localhost:80", "127.0.0.1", "127.0.0.1:http"):
        with pytest.raises(ValueError, match="address:port"):
            AddressGuard({"photos.test": place})
