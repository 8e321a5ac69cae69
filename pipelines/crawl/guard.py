"""Which addresses an untrusted URL may lead to, and a connector that reaches no others.

An address is judged three times: as written in the URL, as the resolver's answer, and once more in the moment
in which its socket is made. The last judgement is of the very address that is connected to, so that a name
whose address changes between check and use gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pipelines.crawl.limits import WEB_PORTS
from pipelines.crawl.names import Names
from pipelines.crawl.reasons import Failure
from pipelines.urls.canonical import canonical_host

MAX_URL = 8190
"""Characters; servers refuse longer ones."""

_GLOBAL_UNICAST_V6 = ipaddress.ip_network("2000::/3")
_NOT_OURS = tuple(
    ipaddress.ip_network(net)
    for net in (
        "168.63.129.16/32",  # a cloud's metadata service that lives in public space
        "192.0.0.0/24",  # protocol assignments, another cloud's metadata; not all Pythons know them
        "192.31.196.0/24",  # sinks and relays: AS112, AMT, 6to4
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.175.48.0/24",
        "2001::/23",  # protocol assignments, Teredo among them, which embeds IPv4 addresses
        "2002::/16",  # 6to4, which embeds them too
        "2620:4f:8000::/48",
        "3fff::/20",  # documentation
    )
)
_UNRESOLVABLE = (".test", ".invalid")
_ODD_AUTHORITY = re.compile(r"[^/?#]*//[^/?#]*[\x00-\x20\x7f\\]")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\Z")  # what a resolver can be asked


class AddressRefused(OSError):
    """The address is not public and not on the allow-list; an OSError, which every layer passes on."""


class TooMuchReceived(ConnectionError):
    """A server sent more than any answer may have."""


class BoundedSocket(socket.socket):
    """A socket that takes in no more than a number of bytes after each time that it sends some.

    So the limit counts all that a server sends, whatever it calls it: body, padding of chunks, trailers,
    interim answers, what follows the end of a compressed body.
    """

    most_bytes, received = 0, 0

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.received = 0
        return super().send(data, flags)

    def sendmsg(self, *arguments: Any) -> int:
        self.received = 0
        return super().sendmsg(*arguments)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data = super().recv(size, flags)
        self.received += len(data)
        if self.received > self.most_bytes:
            raise TooMuchReceived(f"more than {self.most_bytes} bytes in one answer")
        return data


def is_public(address: str) -> bool:
    """Whether a numeric address is a public unicast one; embedded IPv4 addresses never count as public."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        unicast = not ip.is_multicast
    else:
        unicast = ip.scope_id is None and ip in _GLOBAL_UNICAST_V6
    return unicast and ip.is_global and not any(ip in net for net in _NOT_OURS)


class AddressGuard(AbstractResolver):
    """Resolver and socket factory for aiohttp that give out vetted addresses only.

    Args:
        overrides: host to "address:port" where it is served instead, for corpora that are served locally
            under symbolic names.
        allow_hosts: hosts whose addresses may be private and whose ports may be any.
        allow_ports: those that other hosts may be asked at: mail servers and databases listen elsewhere.
        max_bytes: most bytes on the wire of one answer, headers included.
        names: how names are resolved, and what is remembered of that; it is judged again like something new.
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        allow_hosts: Collection[str] = (),
        allow_ports: Collection[int] = WEB_PORTS,
        max_bytes: int = 1 << 30,
        names: Names | None = None,
    ) -> None:
        self._overrides = {
            canonical_host(host): _endpoint(place) for host, place in (overrides or {}).items()
        }
        self._allow_hosts = {canonical_host(host) for host in allow_hosts}
        self._allow_ports, self._max_bytes = frozenset(allow_ports), max_bytes
        self._names = names or Names()
        self._opened: set[tuple[str, int]] = set(self._overrides.values())

    def parse(self, url: str) -> URL:
        """Parse a URL and judge what can be judged without a connection.

        Raises:
            Failure: bad_url, scheme_refused, address_refused or port_refused.
        """
        url = url.strip()
        if len(url) > MAX_URL:
            raise Failure("bad_url", f"{len(url)} characters")
        try:
            parsed = URL(url)
            host, port = parsed.raw_host, parsed.port
        except (ValueError, TypeError, LookupError) as error:  # the last for "http://[]@/"
            raise Failure("bad_url", str(error)) from error
        if parsed.scheme not in ("http", "https"):
            raise Failure("scheme_refused", parsed.scheme)
        if not host or port is None or _ODD_AUTHORITY.match(url):
            raise Failure("bad_url")
        name = canonical_host(host)
        if not self._judge_literal(name, port) and not _NAME.match(host.lower().rstrip(".")):
            raise Failure("bad_url", "no name that can be resolved")
        if parsed.raw_user is not None or parsed.raw_password is not None:
            raise Failure("bad_url", "carries credentials")
        if not (port in self._allow_ports or name in self._allow_hosts or name in self._overrides):
            raise Failure("port_refused", str(port))
        return parsed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the vetted addresses of a host; refuse the host if any of its addresses is not public.

        Raises:
            AddressRefused: some address is not public.
            OSError: the name has no address.
        """
        name = canonical_host(host)
        if name in self._overrides:
            return [_result(host, *self._overrides[name])]
        if name.endswith(_UNRESOLVABLE):  # reserved names that never exist (RFC 6761): no need to ask
            raise OSError(f"{host} is a reserved name")
        addresses = await self._names.resolve(name, port)
        if name in self._allow_hosts:
            self._opened.update((address, port) for address in addresses)
        elif not all(is_public(address) for address in addresses):
            raise AddressRefused(f"{host} leads to {', '.join(addresses)}")
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Nothing is held open."""

    def socket(self, addr_info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        """Make the socket for an address that is about to be connected to, if that address is allowed."""
        family, kind, protocol, _, target = addr_info
        address, port = str(target[0]), int(target[1])
        if not is_public(address) and (address, port) not in self._opened:
            raise AddressRefused(f"{address} is not public")
        made = BoundedSocket(family=family, type=kind, proto=protocol)
        made.most_bytes = self._max_bytes
        return made

    def connector(self, connections: int) -> aiohttp.TCPConnector:
        """Make an aiohttp connector that goes through this guard; call it inside the event loop."""
        return aiohttp.TCPConnector(
            resolver=self, socket_factory=self.socket, limit=connections, use_dns_cache=False
        )

    def _judge_literal(self, host: str, port: int) -> bool:
        """Judge a host written as a number: the HTTP client connects to those without asking the resolver.

        Returns:
            Whether it is one; else it is a name.
        """
        try:
            address = str(ipaddress.ip_address(host))
        except ValueError:
            try:
                socket.inet_aton(host)
            except (OSError, ValueError):
                return False
            raise Failure("address_refused", f"{host} is an address in disguise") from None
        if host in self._allow_hosts:
            self._opened.add((address, port))
        elif not is_public(address):
            raise Failure("address_refused", f"{host} is not public")
        return True


def _endpoint(place: str) -> tuple[str, int]:
    address, _, port = place.rpartition(":")
    try:
        return str(ipaddress.ip_address(address.strip("[]"))), int(port)
    except ValueError:
        raise ValueError(f"a host override must be 'address:port', not {place!r}") from None


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
