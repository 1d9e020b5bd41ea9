from __future__ import annotations

import pytest

from kongai.corporate_proxy import CorporateProxy, chosen, parsed

PASSWORD = "pa%3Ass"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example:3128", CorporateProxy("http", "proxy.example", 3128)),
        ("proxy.example:3128", CorporateProxy("http", "proxy.example", 3128)),
        ("proxy.example", CorporateProxy("http", "proxy.example", 80)),
        ("HTTPS://Proxy.Example/", CorporateProxy("https", "proxy.example", 443)),
        ("http://[::1]:8080", CorporateProxy("http", "::1", 8080)),
    ],
)
def test_a_url_names_a_proxy(url: str, proxy: CorporateProxy) -> None:
    assert parsed(url) == proxy


@pytest.mark.parametrize(
    ("user", "word"),
    [
        ("user:pass", "dXNlcjpwYXNz"),
        ("user", "dXNlcjo="),
        (f"u%40x:{PASSWORD}", "dUB4OnBhOnNz"),
        ("caf%C3%A9:x", "Y2Fm6Tp4"),
    ],
)
def test_a_proxy_is_told_who_asks(user: str, word: str) -> None:
    proxy = parsed(f"http://{user}@proxy.example")
    assert proxy.headers == (("Proxy-Authorization", f"Basic {word}"),)
    assert word not in repr(proxy)
    assert (proxy.host, proxy.port) == ("proxy.example", 80)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "socks5://proxy.example:1080",
        f"ftp://u:{PASSWORD}@proxy.example",
        f"http://u:{PASSWORD}@proxy.example:port",
        f"http://u:{PASSWORD}@proxy.example:99999",
        f"http://u:{PASSWORD}@[::1",
    ],
)
def test_what_names_no_proxy(url: str) -> None:
    with pytest.raises(
        ValueError, match=r"^a proxy's URL is http://HOST:PORT"
    ) as error:
        parsed(url)
    assert PASSWORD not in repr(error.value)


def test_the_nearest_proxy_is_chosen() -> None:
    names = ("http", "https", "all", "https://a.example", "all://b.example")
    proxies = {name: CorporateProxy("http", name, 1) for name in names}
    for scheme, host, name in (
        ("http", "c.example", "http"),
        ("https", "c.example", "https"),
        ("https", "A.Example", "https://a.example"),
        ("http", "a.example", "http"),
        ("https", "b.example", "https"),
    ):
        assert chosen(proxies, scheme, host) is proxies[name]
    del proxies["http"], proxies["https"]
    assert chosen(proxies, "http", "b.example") is proxies["all://b.example"]
    assert chosen(proxies, "http", "c.example") is proxies["all"]
    del proxies["all"]
    assert chosen(proxies, "http", "c.example") is None


def test_an_address_chooses_with_or_without_brackets() -> None:
    proxies = {"http://::1": CorporateProxy("http", "p", 1)}
    assert chosen(proxies, "http", "[::1]") is chosen(proxies, "http", "::1")
    assert chosen(proxies, "http", "::1") is not None
