"""Where webhooks may be posted, whatever a URL or a name server says."""

import asyncio
import threading
from collections.abc import AsyncIterator

import httpcore
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.testing.plugin import eventually
from notifier.webhooks.destinations import BadDestination, Destinations, is_public, port_of

from .name_server import naming
from .world import holds


@pytest.fixture
async def destinations() -> AsyncIterator[Destinations]:
    destinations = Destinations({("localhost", 9000), ("::1", 9001)})
    yield destinations
    await destinations.close()


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.1.2.3",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
        ),
        *("192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1"),
        *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *(
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
        ),
        *(
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fe80::1%lo",
        ),
        *("fec0::1", "ff02::1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "192.0.3.1", "2606:4700::1111"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "hooks.example",
            "/hook",
            "//hooks.example/",
            "ftp://hooks.example/",
            "javascript:alert(1)",
            "https://",
            "https:///x",
        ),
        *("http://hooks.example/", "http://localhost:9002/", "http://localhost/", "HTTP://hooks.example"),
        *("https://user@hooks.example/", "https://user:password@hooks.example/", "https://hooks.example/#part"),
        *(
            "https://hooks.example:0/",
            "https://hooks.example:65536/",
            "https://hooks.example:port/",
            "https://hooks\n.example/",
        ),
        *("https://hooks.example\\@localhost:9000/", "https://[::1/", "https://hooks.example/\x00"),
        *("https://xn--i-7iq.ws/", "https://xn--ls8h.la/", "https://xn--/", "https://xn--a/", "https://i❤.ws/"),
        *("https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://[2606:4700::1111%25eth0]/"),
        *("https://[fe80::1%eth0\x80ß]/", "https://[v1.a]/", "https://[8.8.8.8]/", "https://8.8.8.8%2f/"),
        *(
            "https://hooks%2eexample/",
            "https://hooks example/",
            "https://hooks.example:-1/",
            "https://:@hooks.example/",
        ),
    ],
)
async def test_an_invalid_url_is_refused(destinations: Destinations, url: str) -> None:
    with pytest.raises(BadDestination):
        await destinations.validate(url)


_HOSTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["xn--", "xn--i-7iq.ws", "[fe80::1%25eth0]", "[::1]", "[::ffff:8.8.8.8]", "hooks.example", "8.8.8.8"]
    ),
    st.text("xn-0123456789.", max_size=12).map("xn--{}".format),
    st.text("abcdef0123456789:.%zeth\x80ß", max_size=20).map("[{}]".format),
)
_URLS = st.one_of(
    st.text(max_size=40),
    st.tuples(
        st.sampled_from(["https://", "http://", "HTTPS:", "//", "ftp://", "https:////"]) | st.text(max_size=5),
        st.sampled_from(["", "", "user@", ":@", "user:password@"]) | st.text(max_size=3),
        _HOSTS,
        st.sampled_from(["", "", ":443", ":0", ":-1", ":65536", ":", ":x"]) | st.integers().map(":{}".format),
        st.sampled_from(["", "/", "/?,", "/#", "\\@localhost"]) | st.text(max_size=10),
    ).map("".join),
)


@settings(deadline=None, max_examples=1000)
@given(_URLS)
@example("https://xn--i-7iq.ws/")
@example("https://[fe80::1%eth0\x80ß]/")
def test_any_text_is_a_usable_url_or_refused_and_nothing_else_happens(text: str) -> None:
    destinations = Destinations(())
    try:
        url = destinations.parse(text)
    except BadDestination:
        return
    httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=port_of(url), target=url.raw_path)
    assert url.scheme == "https"
    assert url.host
    assert url.netloc
    assert not url.userinfo
    assert "%" not in url.host
    assert destinations.parse(str(url)) == url


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "LOCALHOST",
            "localhost.",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "017700000001",
            "0",
        ),
        *("[::1]", "[::ffff:127.0.0.1]", "[::]", "10.0.0.1", "169.254.169.254", "[fe80::1]", "[64:ff9b::7f00:1]"),
        "\N{FULLWIDTH DIGIT ONE}27.0.0.1",
    ],
)
async def test_a_host_at_an_address_that_is_not_public_is_refused_however_it_is_written(
    destinations: Destinations, host: str
) -> None:
    with pytest.raises(BadDestination):
        await destinations.validate(f"https://{host}/")
    with pytest.raises(BadDestination):
        await destinations.validate(f"https://{host}:8443/")


@pytest.mark.parametrize(
    "url",
    [
        "https://nobody.invalid/",
        "https://8.8.8.8/",
        "https://8.8.8.8:8443/a?b=c",
        "http://localhost:9000/",
        "https://localhost:9000/",
        "http://[::1]:9001/",
        f"https://{'a' * 64}.invalid/",
        "https://bücher.invalid/",
    ],
)
async def test_public_addresses_unknown_names_and_allowed_hosts_may_be_registered(
    destinations: Destinations, url: str
) -> None:
    assert (await destinations.validate(url)).is_absolute_url


async def test_a_name_server_that_does_not_answer_delays_a_registration_by_seconds_only() -> None:
    async with naming() as (_, resolver):
        destinations = Destinations((), resolver=resolver)
        async with asyncio.timeout(10):
            await destinations.validate("https://hooks.slow.example/")


async def test_names_that_no_server_answers_for_hold_neither_threads_nor_other_names() -> None:
    """More than any number of threads or of concurrent requests."""
    async with naming(hooks=[["8.8.8.8"]]) as (names, resolver):
        destinations = Destinations((), resolver=resolver)
        threads = threading.active_count()
        slow = [asyncio.create_task(destinations.addresses(f"h{n}.slow.example", 443)) for n in range(200)]
        await eventually(lambda: holds(len(set(names.unanswered)) == len(slow)))
        assert await destinations.addresses("hooks.example", 443) == ["8.8.8.8"]
        assert not any(task.done() for task in slow)
        assert threading.active_count() == threads
        results = await asyncio.gather(*slow, return_exceptions=True)
        assert {isinstance(result, OSError) for result in results} == {True}
