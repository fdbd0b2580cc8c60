"""What a pod of somebody else can do to a job that it reaches over the network: look at it, and nothing more."""

from typing import Any

from jobs import Job
from kubernetes_cluster import RESTRICTED, Kubernetes, eventually

REFUSED = {"closed", "ConnectionResetError", "TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA"}
"""What a client is told whose handshake fails: an alert, unless the connection is closed before it arrives."""

# Each line says what came of it. The network is open, so that it is TLS that refuses.
_KNOCK = """
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
print("another's:", knock("/etc/another"))
print("own:", knock("/etc/own"))
print("read:", ask("GET", "/jobs"))
print("change:", ask("PATCH", "/jobs/" + sys.argv[2]))
"""


def test_a_tenants_pod_gets_nothing_without_a_certificate_of_the_job(
    kubernetes: Kubernetes, job: Job, other_namespace: str
) -> None:
    """Neither with none nor with that of another FlinkJob, while that of the job's own pods is taken; and without the token
    it may read, and change nothing."""
    other = Job(kubernetes, other_namespace)
    other.create(job={**other.manifest()["spec"]["job"], "state": "suspended"})
    job.create()
    before = job.holding()
    tls = f"{job.name}-taskmanager-tls"
    eventually(lambda: other.exists("secret", tls), "the other job has certificates")
    own = kubernetes.get(job.namespace, "secret", tls)
    other.apply({"apiVersion": "v1", "kind": "Secret", "metadata": _named("own", other), "data": own["data"]})
    address = f"{job.leader()}.{job.name}-jobmanager.{job.namespace}.svc"
    (running,) = kubernetes.rest(job.namespace, job.leader(), "/jobs")["jobs"]
    other.apply(_pod(other, {"another": tls, "own": "own"}, [address, running["id"]]))
    other.kubectl("wait", "pod/foreign", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
    said = dict(line.split(": ") for line in other.kubectl("logs", "foreign").splitlines() if ":" in line)
    print(said)
    assert said["own"] == "answered"
    assert said["without"] in REFUSED
    assert said["another's"] in REFUSED
    assert said["read"] == "200"
    assert said["change"] == "401"
    job.unnoticed(before)
    job.finish()
    assert job.starts() == job.once()


def _pod(job: Job, certificates: dict[str, str], arguments: list[str]) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": job.kubernetes.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", _KNOCK, *arguments],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": name, "mountPath": f"/etc/{name}"} for name in certificates],
    }
    volumes = [{"name": name, "secret": {"secretName": secret}} for name, secret in certificates.items()]
    spec = {"containers": [container], "restartPolicy": "Never", "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _named("foreign", job), "spec": spec}


def _named(name: str, job: Job) -> dict[str, str]:
    return {"name": name, "namespace": job.namespace}
