"""Certificates: who is accepted by whom, and that no moment of a rotation leaves two pods that do not know each other."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from flinkjob.controller.certificates import (
    AUTHORITY_LIFE,
    CERTIFICATE_LIFE,
    OVERLAP,
    Authority,
    KeyPair,
    Role,
    jobmanager_role,
    maintain_authority,
    maintain_certificate,
    next_change,
    taskmanager_role,
)
from flinkjob.rpc.tls import TlsFiles, client_context, server_context

NOW = datetime(2026, 11, 23, tzinfo=UTC)
JOBMANAGER = jobmanager_role("wordcount-jobmanager", "wordcount-rest", "batch")
TASKMANAGER = taskmanager_role("wordcount-taskmanager")
POD = "wordcount-jobmanager-1.wordcount-jobmanager.batch.svc"


def make_authority(now: datetime = NOW) -> Authority:
    return maintain_authority(None, name="wordcount", now=now)


def issue(authority: Authority, role: Role = JOBMANAGER, now: datetime = NOW) -> KeyPair:
    return maintain_certificate(None, authority=authority, role=role, now=now)


def files(directory: Path, pair: KeyPair, authority: Authority) -> TlsFiles:
    directory.mkdir()
    for name, data in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", authority.bundle)):
        (directory / name).write_bytes(data)
    return TlsFiles(
        certificate=str(directory / "tls.crt"), key=str(directory / "tls.key"), authority=str(directory / "ca.crt")
    )


def handshake(server: TlsFiles, client: TlsFiles, called: str = POD) -> None:
    """A whole mutual TLS handshake in memory, by the contexts that the JobManagers and TaskManagers use."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context(client).wrap_bio(to_client, to_server, server_hostname=called),
        server_context(server).wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for end in reversed(ends):
        end.write(b"hello")
    # In TLS 1.3 a client hears only now that the server has refused it.
    assert [end.read() for end in ends] == [b"hello", b"hello"]


@pytest.fixture
def now() -> datetime:
    """The contexts under test go by the real clock."""
    return datetime.now(UTC)


def test_a_taskmanager_and_a_jobmanager_of_one_job_accept_each_other(tmp_path: Path, now: datetime) -> None:
    authority = make_authority(now)
    server = files(tmp_path / "jm", issue(authority, JOBMANAGER, now), authority)
    client = files(tmp_path / "tm", issue(authority, TASKMANAGER, now), authority)
    handshake(server, client)


def test_jobs_do_not_accept_each_other(tmp_path: Path, now: datetime) -> None:
    ours, theirs = make_authority(now), make_authority(now)
    server = files(tmp_path / "jm", issue(ours, JOBMANAGER, now), ours)
    client = files(tmp_path / "tm", issue(theirs, TASKMANAGER, now), theirs)
    with pytest.raises(ssl.SSLError):
        handshake(server, client)


def test_a_taskmanager_cannot_pose_as_a_jobmanager(tmp_path: Path, now: datetime) -> None:
    authority = make_authority(now)
    server = files(tmp_path / "a", issue(authority, TASKMANAGER, now), authority)
    client = files(tmp_path / "b", issue(authority, TASKMANAGER, now), authority)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"purpose|mismatch"):
        handshake(server, client, called="wordcount-taskmanager")


def test_a_jobmanager_is_refused_under_another_name(tmp_path: Path, now: datetime) -> None:
    authority = make_authority(now)
    server = files(tmp_path / "jm", issue(authority, JOBMANAGER, now), authority)
    client = files(tmp_path / "tm", issue(authority, TASKMANAGER, now), authority)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(server, client, called="other-jobmanager-0.other-jobmanager.batch.svc")


def test_what_is_in_order_stays_the_very_same() -> None:
    authority = make_authority()
    pair = issue(authority)
    later = NOW + CERTIFICATE_LIFE / 2
    assert maintain_authority(authority, name="wordcount", now=later) is authority
    assert maintain_certificate(pair, authority=authority, role=JOBMANAGER, now=later) is pair


def test_an_authority_survives_being_written_and_read() -> None:
    old = make_authority()
    rotated = maintain_authority(old, name="wordcount", now=NOW + AUTHORITY_LIFE * 0.7)
    assert len(rotated.generations) == 2
    assert Authority.parse(rotated.bundle, rotated.keys) == rotated


@pytest.mark.parametrize(
    ("bundle", "keys"),
    [
        (b"", b""),
        (b"nonsense", b"nonsense"),
        (make_authority().bundle, b""),
        (make_authority().bundle, make_authority().keys),
    ],
    ids=["empty", "nonsense", "no key", "another's key"],
)
def test_a_damaged_authority_is_none(bundle: bytes, keys: bytes) -> None:
    assert Authority.parse(bundle, keys) is None


@pytest.mark.parametrize(
    "present",
    [
        KeyPair(b"", b""),
        issue(make_authority()),
        issue(make_authority(), TASKMANAGER),
        KeyPair(issue(make_authority()).certificate, issue(make_authority()).key),
    ],
    ids=["unreadable", "another authority", "another role", "another key"],
)
def test_a_certificate_that_does_not_serve_is_made_anew(present: KeyPair) -> None:
    authority = make_authority()
    renewed = maintain_certificate(present, authority=authority, role=JOBMANAGER, now=NOW)
    assert renewed != present
    assert maintain_certificate(renewed, authority=authority, role=JOBMANAGER, now=NOW) is renewed


def test_a_certificate_for_other_names_is_made_anew() -> None:
    authority = make_authority()
    pair = issue(authority)
    other = jobmanager_role("wordcount-jobmanager", "wordcount-rest", "elsewhere")
    assert maintain_certificate(pair, authority=authority, role=other, now=NOW) is not pair


def test_a_certificate_is_renewed_long_before_it_expires() -> None:
    authority = make_authority()
    pair = issue(authority)
    due = next_change(authority, (pair,), NOW)
    assert NOW + CERTIFICATE_LIFE * 0.6 < due < NOW + CERTIFICATE_LIFE * 0.7
    before, after = due - timedelta(seconds=1), due + timedelta(seconds=1)
    assert maintain_certificate(pair, authority=authority, role=JOBMANAGER, now=before) is pair
    assert maintain_certificate(pair, authority=authority, role=JOBMANAGER, now=after) is not pair


def test_at_no_moment_of_three_years_do_two_pods_not_know_each_other() -> None:
    """The operator acts whenever `next_change` says so; a pod may still hold the Secrets of the time before."""
    now = NOW
    authority = make_authority()
    pairs = {role: issue(authority, role) for role in (JOBMANAGER, TASKMANAGER)}
    issuers = set()
    while now < NOW + 3 * AUTHORITY_LIFE:
        due = next_change(authority, tuple(pairs.values()), now)
        assert due > now
        now = due
        newer = maintain_authority(authority, name="wordcount", now=now)
        newer_pairs = {
            role: maintain_certificate(pair, authority=newer, role=role, now=now) for role, pair in pairs.items()
        }
        for trusting in (authority, newer):
            for certificates in (pairs, newer_pairs):
                for pair in certificates.values():
                    verify(pair, trusting, now)
        authority, pairs = newer, newer_pairs
        issuers.add(authority.generations[-1].certificate)
    assert len(issuers) > 3
    assert len(authority.generations) <= 2


def test_a_new_generation_signs_only_when_everybody_trusts_it() -> None:
    old = make_authority()
    now = NOW + AUTHORITY_LIFE * 0.7
    rotated = maintain_authority(old, name="wordcount", now=now)
    at_once = issue(rotated, now=now)
    verify(at_once, old, now)
    later = now + OVERLAP
    assert next_change(rotated, (at_once,), now) == later
    renewed = maintain_certificate(at_once, authority=rotated, role=JOBMANAGER, now=later)
    assert renewed is not at_once
    with pytest.raises(VerificationError):
        verify(renewed, old, later)


def verify(pair: KeyPair, authority: Authority, now: datetime) -> None:
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    store = Store(x509.load_pem_x509_certificates(authority.bundle))
    PolicyBuilder().store(store).time(now).build_client_verifier().verify(certificate, [])
