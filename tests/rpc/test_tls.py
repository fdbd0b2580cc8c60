"""Mutual TLS with certificates of an authority made for the test."""

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest

from flinkjob.api.errors import InvalidInput
from flinkjob.rpc.tls import ClientTls, ServerTls, TlsFiles, client_context, server_context
from rpc.certificates import make_authority, make_certificate, openssl, place

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificates")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tls") / "strangers")


async def echo(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "jobmanager") -> tuple[bytes, str | None]:
    """Send a word there and back; returns it and the version of TLS that carried it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    try:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        try:
            writer.write(b"word")
            return await reader.read(100), writer.get_extra_info("ssl_object").version()
        finally:
            writer.close()
    finally:
        listening.close()


async def is_refused(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Whether the word does not get through; with TLS 1.3 a client hears of its refusal only when it reads."""
    try:
        return (await echo(server, client))[0] == b""
    except (ssl.SSLError, ConnectionError):
        return True


async def test_two_with_certificates_of_one_authority_talk_by_tls_1_3(ours: Path) -> None:
    server, client = make_certificate(ours, "jobmanager"), make_certificate(ours, "taskmanager")
    assert await echo(server_context(server), client_context(client)) == (b"word", "TLSv1.3")


async def test_a_server_of_another_authority_is_refused(ours: Path, strangers: Path) -> None:
    server, client = make_certificate(strangers, "jobmanager"), make_certificate(ours, "taskmanager")
    with pytest.raises(ssl.SSLCertVerificationError):
        await echo(server_context(server), client_context(client))


async def test_a_server_under_another_name_is_refused(ours: Path) -> None:
    server, client = make_certificate(ours, "somebody"), make_certificate(ours, "taskmanager")
    with pytest.raises(ssl.SSLCertVerificationError):
        await echo(server_context(server), client_context(client))


async def test_a_client_of_another_authority_is_refused(ours: Path, strangers: Path) -> None:
    server, stranger = make_certificate(ours, "jobmanager"), make_certificate(strangers, "taskmanager")
    trusting = client_context(
        TlsFiles(certificate=stranger.certificate, key=stranger.key, authority=str(ours / "ca.pem"))
    )
    assert await is_refused(server_context(server), trusting)


async def test_a_client_without_a_certificate_is_refused(ours: Path) -> None:
    nobody = ssl.create_default_context(cafile=str(ours / "ca.pem"))
    assert await is_refused(server_context(make_certificate(ours, "jobmanager")), nobody)


async def test_older_tls_is_refused(ours: Path) -> None:
    client = client_context(make_certificate(ours, "taskmanager"))
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await is_refused(server_context(make_certificate(ours, "jobmanager")), client)


@pytest.mark.parametrize("field", ["certificate", "key", "authority"])
@pytest.mark.parametrize("content", [None, "", "nonsense"])
def test_files_that_cannot_be_used_are_named(ours: Path, tmp_path: Path, field: str, content: str | None) -> None:
    good = make_certificate(ours, "jobmanager")
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_text(content)
    values = {"certificate": good.certificate, "key": good.key, "authority": good.authority, field: str(bad)}
    with pytest.raises(InvalidInput, match=r"TLS .* cannot be used: .+") as caught:
        server_context(TlsFiles(**values))
    if field == "authority" or content is None:
        assert str(bad) in str(caught.value)


def test_a_key_of_another_certificate_is_refused(ours: Path) -> None:
    one, other = make_certificate(ours, "one"), make_certificate(ours, "other")
    with pytest.raises(InvalidInput, match="mismatch"):
        client_context(TlsFiles(certificate=one.certificate, key=other.key, authority=one.authority))


def test_an_encrypted_key_is_an_error_and_no_prompt(ours: Path, tmp_path: Path) -> None:
    files = make_certificate(ours, "encrypted")
    key = tmp_path / "key.pem"
    openssl("ec", "-in", files.key, "-aes256", "-passout", "pass:secret", "-out", key)
    with pytest.raises(InvalidInput, match="cannot be used"):
        client_context(TlsFiles(certificate=files.certificate, key=str(key), authority=files.authority))


# Parts


async def test_the_certificate_of_a_taskmanager_is_no_jobmanagers(ours: Path) -> None:
    """Not even under the JobManager's name."""
    posing = make_certificate(ours, "jobmanager", usage="clientAuth")
    client = make_certificate(ours, "taskmanager", usage="clientAuth")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate purpose"):
        await echo(server_context(posing), client_context(client))


async def test_a_server_takes_no_certificate_that_is_for_servers_only(ours: Path) -> None:
    server = make_certificate(ours, "jobmanager", usage="serverAuth,clientAuth")
    other = make_certificate(ours, "website", usage="serverAuth")
    assert await is_refused(server_context(server), client_context(other))
    assert not await is_refused(server_context(server), client_context(server))


# New certificates


async def test_new_certificates_are_used_by_the_next_connection(ours: Path, strangers: Path, tmp_path: Path) -> None:
    server = ServerTls(place(make_certificate(ours, "jobmanager"), tmp_path / "server"))
    client = ClientTls(place(make_certificate(ours, "taskmanager"), tmp_path / "client"))
    before = client.context()
    assert (await echo(server.context, client.context()))[0] == b"word"

    place(make_certificate(strangers, "jobmanager"), tmp_path / "server")
    with pytest.raises(ssl.SSLCertVerificationError):
        await echo(server.context, client.context())
    place(make_certificate(strangers, "taskmanager"), tmp_path / "client")
    assert (await echo(server.context, client.context()))[0] == b"word"

    # The old authority's word counts no more: neither the server's nor the client's certificate of it.
    with pytest.raises(ssl.SSLCertVerificationError):
        await echo(server.context, before)
    old = make_certificate(ours, "taskmanager")
    trusting = TlsFiles(certificate=old.certificate, key=old.key, authority=str(strangers / "ca.pem"))
    assert await is_refused(server.context, client_context(trusting))


async def test_new_certificates_leave_open_connections_alone(ours: Path, strangers: Path, tmp_path: Path) -> None:
    server = ServerTls(place(make_certificate(ours, "jobmanager"), tmp_path / "server"))
    client = client_context(make_certificate(ours, "taskmanager"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server.context)
    port = listening.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="jobmanager")
    place(make_certificate(strangers, "jobmanager"), tmp_path / "server")
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="jobmanager")
    writer.write(b"still here")
    assert await reader.read(100) == b"still here"
    writer.close()
    listening.close()


async def test_files_that_make_no_sense_leave_things_as_they_were(ours: Path, tmp_path: Path) -> None:
    server = ServerTls(mounted := place(make_certificate(ours, "jobmanager"), tmp_path / "server"))
    client = ClientTls(place(make_certificate(ours, "taskmanager"), tmp_path / "client"))
    Path(mounted.certificate).write_text("half a certifi")
    Path(mounted.key).unlink()
    assert (await echo(server.context, client.context()))[0] == b"word"
    place(make_certificate(ours, "elsewhere"), tmp_path / "server")
    with pytest.raises(ssl.SSLCertVerificationError, match="jobmanager"):
        await echo(server.context, client.context())
