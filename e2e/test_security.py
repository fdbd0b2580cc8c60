"""What a pod of somebody else can do to a job that it reaches over the network: look at it, and nothing more."""

from typing import Any

from jobs import Job
from kubernetes_cluster import RESTRICTED, Kubernetes, eventually

_CERTIFICATE = "/etc/other"

# Each line says what came of it: the network is open, so that it is the handshake that refuses, or the end of the first read.
_KNOCK = f"""
import socket, ssl, sys, urllib.error, urllib.request

host = sys.argv[1]


def knock(certificate):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate + "/tls.crt", certificate + "/tls.key")
    connection = socket.create_connection((host, 6123), 10)
    try:
        with context.wrap_socket(connection) as tls:
            tls.sendall(b"GET /taskmanager HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            return "answered" if tls.recv(1) else "closed"
    except (ssl.SSLError, ConnectionResetError) as error:
        return getattr(error, "reason", None) or type(error).__name__


def ask(method, path):
    try:
        request = urllib.request.Request("http://" + host + ":8081" + path, method=method)
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


socket.create_connection((host, 6123), 10).close()
print("connected")
print("without:", knock(None))
print("another's:", knock("{_CERTIFICATE}"))
print("read:", ask("GET", "/jobs"))
print("change:", ask("PATCH", "/jobs/" + sys.argv[2]))
"""


def test_a_tenants_pod_gets_nothing_without_a_certificate_of_the_job(
    kubernetes: Kubernetes, job: Job, other_namespace: str
) -> None:
    """Neither with none nor with that of another FlinkJob; and without the token it may read, and change nothing."""
    other = Job(kubernetes, other_namespace)
    other.create(job={**other.manifest()["spec"]["job"], "state": "suspended"})
    job.create()
    before = job.holding()
    eventually(lambda: other.exists("secret", f"{other.name}-taskmanager-tls"), "the other job has certificates")
    address = f"{job.leader()}.{job.name}-jobmanager.{job.namespace}.svc"
    (running,) = kubernetes.rest(job.namespace, job.leader(), "/jobs")["jobs"]
    other.apply(_pod(other, f"{other.name}-taskmanager-tls", [address, running["id"]]))
    other.kubectl("wait", "pod/foreign", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
    said = dict(line.split(": ") for line in other.kubectl("logs", "foreign").splitlines() if ":" in line)
    print(said)
    assert said["without"] == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert said["another's"] == "TLSV1_ALERT_UNKNOWN_CA"
    assert said["read"] == "200"
    assert said["change"] == "401"
    job.unnoticed(before)
    job.finish()
    assert job.starts() == job.once()


def _pod(job: Job, certificate: str, arguments: list[str]) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": job.kubernetes.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", _KNOCK, *arguments],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "certificate", "mountPath": _CERTIFICATE}],
    }
    volumes = [{"name": "certificate", "secret": {"secretName": certificate}}]
    spec = {"containers": [container], "restartPolicy": "Never", "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foreign", "namespace": job.namespace}, "spec": spec}
