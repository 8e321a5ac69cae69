"""Who opted out is found in every spelling, and nobody else."""

from __future__ import annotations

import pytest

from pipelines.urls.opt_out import OptOut

LISTED = OptOut(
    [
        "Example.com", "http://b.test/one.jpg", "bücher.example", "*.c.test", "https://d.test/", "f.test/x",
        "[2001:4860::8888]", "https://e.test:8443/Größe.jpg?id=7", "http://[broken", "xn--strae-oqa.de",
        "2001:4860::9999", ".dotted.test", "http://*.starred.test/", "http://q.test/a?b=c+d", "http://r.test?x=1",
        "s.test/x//y.jpg", "http://[::ffff:9.9.9.9]/", "t.test/a.jpg?u=http://example.net/", "u.test:8080",
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://WWW.EXAMPLE.COM.:8080/x.jpg",
        "http://example.com:80/",
        "http://EXAMPLE。com/a",
        "http://ｅｘａｍｐｌｅ．ｃｏｍ/a",
        "http://%65xample%2ecom/a",
        "http://user@a.example.com:443/a#b",
        "  http://example.com/a\n",
        "//example.com/a",
        "http://exam\tple.com/a",
        "http://b.test/one.jpg/",
        "https://b.test/one.jpg",
        "https://b.test:443/one.jpg",
        "http://b.test:80/one.jpg#top",
        "http://b.test:443/ONE.jpg",
        "http://b.test/%6Fne%2ejpg",
        "http://b.test/x/../one.jpg",
        "http://b.test/./one.jpg",
        "http://b.test/x/%2e%2E/one.jpg",
        "http://b.test//one.jpg",
        "http://b.test./one.jpg?",
        "http://xn--bcher-kva.example/a",
        "http://XN--BCHER-KVA.example/a",
        "http://www.b\u0075\u0308cher.example/a",  # the umlaut in two characters
        "http://b%C3%BCcher.example/a",
        "http://c.test/",
        "http://a.c.test/a",
        "http://d.test/any.jpg",
        "http://[2001:4860:0:0:0:0:0:8888]/a",
        "http://[2001:4860::8888]:8080/a",
        "http://e.test:8443/Gr%C3%B6%C3%9Fe.jpg?id=7",
        "https://e.test:8443/gr%c3%b6%c3%9fe.jpg?%69d=7#x",
        "http://f.test/x",
        "http://[broken",
        "http://straße.de/a",
        "http://[2001:4860:0::9999]:443/a",
        "http://dotted.test/a",
        "http://www.dotted.test/a",
        "http://starred.test/a",
        "http://a.starred.test/a",
        "http://q.test/a?b=c%20d",
        "http://q.test/a?b=c d",
        "http://q.test/a?%62=c%2Bd",
        "http://r.test/?x=1",
        "http://r.test:80/?x=1#y",
        "http://s.test/x/y.jpg",
        "https://9.9.9.9/a",
        "http://t.test/a.jpg?u=http%3A%2F%2Fexample.net",
        "https://a.u.test/b",
    ],
)
def test_spelling_makes_no_difference(url: str) -> None:
    assert url in LISTED


@pytest.mark.parametrize(
    "url",
    [
        "http://b.test/two.jpg",
        "http://b.test:8080/one.jpg",
        "http://a.b.test/one.jpg",
        "http://notexample.com/",
        "http://example.com.evil.test/",
        "http://a.test/?from=example.com",
        "http://example.com@a.test/",
        "http://com/",
        "https://e.test:8443/Größe.jpg?id=8",
        "https://e.test/Größe.jpg?id=7",
        "http://f.test/xy",
        "http://strasse.de/a",
        "http://[2001:4860::8889]/",
        "http://undotted.test/",
        "http://q.test/a+b?b=c+d",
        "http://r.test/",
        "http://r.test/?x=2",
        "http://example.net/",
        "",
        None,
        "http://[broken/",
    ],
)
def test_nobody_else_is_meant(url: str | None) -> None:
    assert url not in LISTED


def test_an_empty_list_means_nobody() -> None:
    assert "http://a.test/" not in OptOut([]) and "" not in OptOut([])
