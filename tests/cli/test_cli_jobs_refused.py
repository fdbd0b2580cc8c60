"""What the commands for jobs on a cluster say when something cannot be had: one sentence, and no traceback."""

import functools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flinkjob.cli import kubejobs
from flinkjob.controller import names
from kube.apiserver import ApiServer, programs
from kube.proxy import proxy_to
from stores.servers import free_ports

from .conftest import Answer, Call
from .leaders import JOB_ID, FlinkJobs, Leader, condition, ended, running, until

COMMANDS: list[list[str]] = [
    ["status"],
    ["status", "wordcount"],
    ["watch", "wordcount"],
    ["cancel", "wordcount"],
    ["failover", "wordcount"],
    ["failover", "--dry-run", "wordcount"],
]
OF_A_JOB = COMMANDS[1:]


def sentence(answer: Answer, code: int) -> str:
    """The one line that a refusal is."""
    assert (answer.code, answer.out) == (code, "")
    line, end = answer.err[:-1], answer.err[-1:]
    assert end == "\n"
    assert "\n" not in line
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def kubeconfig(**changes: Any) -> dict[str, Any]:
    """A kubeconfig for a server that nobody serves."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "one",
        **changes,
    }


class TestKubeconfig:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody's own cluster is touched."""
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_that_is_not_there(self, flinkjob: Call, tmp_path: Path, command: list[str]) -> None:
        assert sentence(flinkjob(*command), 2) == f"no cluster: there is no kubeconfig at {tmp_path}/.kube/config"

    def test_that_was_named_and_is_not_there(self, flinkjob: Call) -> None:
        answer = flinkjob("status", "--kubeconfig", "/nowhere/config")
        assert sentence(answer, 2) == "no cluster: there is no kubeconfig at /nowhere/config"

    def test_that_the_environment_names(self, flinkjob: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig()))
        monkeypatch.setenv("KUBECONFIG", f"/nowhere/config:{tmp_path}/config")
        assert "http://127.0.0.1:1 cannot be reached" in sentence(flinkjob("status"), 1)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "is empty"),
            ("just text", "can be used"),
            ("- a\n- list\n", "can be used"),
            ("{unclosed: [", "can be used"),
            ("\x00", "can be used"),
            (yaml.safe_dump(kubeconfig(contexts=None)), "contexts"),
            (yaml.safe_dump(kubeconfig(contexts=[])), "contexts"),
            (yaml.safe_dump(kubeconfig(contexts=[{"name": "one"}])), "context"),
            (yaml.safe_dump(kubeconfig(contexts=[7])), "can be used"),
            (yaml.safe_dump(kubeconfig(clusters=[])), "clusters"),
            (yaml.safe_dump(kubeconfig(clusters=[{"name": "c"}])), "cluster"),
            (yaml.safe_dump(kubeconfig(clusters=[{"name": "c", "cluster": {"server": 7}}])), ""),
            (yaml.safe_dump(kubeconfig(clusters=[{"name": "c", "cluster": {"server": "no url"}}])), ""),
            (yaml.safe_dump(kubeconfig(users=[{"name": "u", "user": {"exec": {}}}])), ""),
            (yaml.safe_dump(kubeconfig(users=[{"name": "u", "user": {"tokenFile": "/nowhere"}}])), ""),
            (yaml.safe_dump(kubeconfig(users=[{"name": "u", "user": {"client-certificate-data": "%"}}])), ""),
            (yaml.safe_dump(kubeconfig(**{"current-context": "two"})), "two"),
        ],
    )
    def test_that_cannot_be_used(self, flinkjob: Call, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "config"
        path.write_text(text)
        answer = flinkjob("status", "--kubeconfig", path)
        assert words.lower() in sentence(answer, answer.code).lower()
        assert answer.code in (1, 2)

    def test_without_the_context_that_was_named(self, flinkjob: Call, tmp_path: Path) -> None:
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(kubeconfig()))
        said = sentence(flinkjob("status", "--kubeconfig", path, "--context", "nowhere"), 2)
        assert str(path) in said
        assert "nowhere" in said

    def test_names_the_namespace(self, flinkjob: Call, jobs: FlinkJobs, tmp_path: Path) -> None:
        values = yaml.safe_load(jobs.server.admin_kubeconfig.read_text())
        values["contexts"][0]["context"]["namespace"] = jobs.namespace
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(values))
        jobs.create()
        assert flinkjob("status", "wordcount", "--kubeconfig", path, "--output", "json").json["name"] == "wordcount"
        elsewhere = flinkjob("status", "wordcount", "--kubeconfig", path, "-n", "default")
        assert sentence(elsewhere, 2) == "there is no FlinkJob 'wordcount' in namespace 'default'"


class TestApiServer:
    @pytest.mark.parametrize("command", COMMANDS[:-2])
    def test_that_is_not_there(
        self, flinkjob: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
    ) -> None:
        monkeypatch.setattr(kubejobs, "PATIENCE", -1)
        (port,) = free_ports(1)
        url = f"https://127.0.0.1:{port}"
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(kubeconfig(clusters=[{"name": "c", "cluster": {"server": url}}])))
        answer = flinkjob(*command, "--kubeconfig", path)
        assert answer.code == 1
        assert answer.err.splitlines()[-1] == f"Error: the API server at {url} cannot be reached: Connection refused"

    def test_whose_name_is_unknown(self, flinkjob: Call, tmp_path: Path) -> None:
        path = tmp_path / "config"
        url = "https://no-such-host.invalid"
        path.write_text(yaml.safe_dump(kubeconfig(clusters=[{"name": "c", "cluster": {"server": url}}])))
        said = sentence(flinkjob("status", "--kubeconfig", path), 1)
        assert said.startswith(f"the API server at {url} cannot be reached: ")
        assert "HTTPSConnection" not in said

    def test_whose_certificate_is_not_trusted(self, flinkjob: Call, apiserver: ApiServer, tmp_path: Path) -> None:
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(kubeconfig(clusters=[{"name": "c", "cluster": {"server": apiserver.url}}])))
        said = sentence(flinkjob("status", "--kubeconfig", path), 1)
        assert "certificate verify failed" in said
        assert said.startswith(f"the API server at {apiserver.url} cannot be reached: ")

    def test_that_does_not_know_the_token(self, flinkjob: Call, apiserver: ApiServer, tmp_path: Path) -> None:
        values = yaml.safe_load(apiserver.admin_kubeconfig.read_text())
        values["users"][0]["user"] = {"token": "wrong"}
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(values))
        said = sentence(flinkjob("status", "--kubeconfig", path), 1)
        assert said == "the API server does not know these credentials; log in to the cluster again"

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_that_is_overloaded(self, flinkjob: Call, jobs: FlinkJobs, tmp_path: Path, status: int) -> None:
        with proxy_to(jobs.server, "tests", groups=["system:masters"]) as proxy:
            proxy.answer(status)
            said = sentence(flinkjob("status", "--kubeconfig", proxy.kubeconfig(tmp_path)), 1)
        assert said == f"the API server cannot answer at the moment ({status}): the proxy was told so"

    def test_that_is_something_else(self, flinkjob: Call, tmp_path: Path, elsewhere: str) -> None:
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(kubeconfig(clusters=[{"name": "c", "cluster": {"server": elsewhere}}])))
        said = sentence(flinkjob("status", "--kubeconfig", path), 1)
        assert said == "what answers in the API server's place is something else"

    @pytest.fixture
    def elsewhere(self, leader: Leader) -> str:
        """Something that serves HTTP and is no API server."""
        leader.says("GET", "/apis/flinkjob.io/v1alpha1/namespaces/default/flinkjobs", ["no", "object"])
        return f"http://{leader.address}:{leader.port}"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_without_flinkjobs(self, kubectl: Call, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
        monkeypatch.setattr(kubejobs, "API_VERSION", "flinkjob.io/v0")
        assert sentence(kubectl(*command), 1) == (
            "the cluster knows no FlinkJobs (flinkjob.io/v0): the operator's chart brings them, see "
            "docs/installation.md"
        )


def told_permissions() -> list[tuple[str, list[str], list[list[str]]]]:
    """What docs/installation.md says that each command needs: its verbs, and the resources for each group of them."""
    text = (Path(__file__).parents[2] / "docs" / "installation.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+(?: --dry-run)?)` \| (`get`[^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    plain = {"flinkjobs": "flinkjobs.flinkjob.io"}
    told = []
    for command, verbs, resources in rows:
        groups = [group.replace("`", "").replace(" ", "") for group in verbs.split(";")]
        named = [
            [plain.get(name.strip("` "), name.strip("` ")) for name in each.split(",")] for each in resources.split(";")
        ]
        told.append((command, groups, named))
    return told


class TestPermissions:
    """A user who may do nothing, and one who may do nearly enough."""

    @pytest.fixture
    def grant(self, jobs: FlinkJobs) -> Callable[..., Path]:
        """Let a new user do what is named, and return its kubeconfig."""

        def grant(*rules: tuple[str, str]) -> Path:
            user = f"user-of-{jobs.namespace}"
            where = ("-n", jobs.namespace)
            for number, (verbs, resource) in enumerate(rules):
                role = ("role", f"r{number}", f"--verb={verbs}", f"--resource={resource}")
                jobs.server.kubectl("create", *role, *where)
                jobs.server.kubectl(
                    "create", "rolebinding", f"r{number}", f"--role=r{number}", f"--user={user}", *where
                )
                of, _, part = resource.partition("/")
                subresource = [f"--subresource={part}"] if part else []
                question = ("auth", "can-i", verbs.partition(",")[0], of, *subresource, f"--as={user}", *where)
                until(functools.partial(granted, jobs.server, *question))
            return jobs.server.kubeconfig(user)

        return grant

    @pytest.mark.parametrize(
        ("command", "verb"), [(command, "list" if command == ["status"] else "get") for command in COMMANDS]
    )
    def test_none(
        self, flinkjob: Call, jobs: FlinkJobs, grant: Callable[..., Path], command: list[str], verb: str
    ) -> None:
        said = sentence(flinkjob(*command, "-n", jobs.namespace, "--kubeconfig", grant()), 1)
        assert said == (
            f'not allowed: User "user-of-{jobs.namespace}" cannot {verb} resource "flinkjobs" in API group '
            f'"flinkjob.io" in the namespace "{jobs.namespace}"'
        )

    @pytest.mark.parametrize(
        ("command", "rules", "words"),
        [
            ("watch", [], 'cannot watch resource "flinkjobs"'),
            ("failover", [], 'cannot patch resource "flinkjobs"'),
            ("cancel", [], 'cannot get resource "secrets"'),
            ("cancel", [("get", "secrets")], 'cannot patch resource "pods/proxy"'),
            ("dry-run", [], 'cannot get resource "pods/proxy"'),
        ],
    )
    def test_one_is_missing(
        self,
        flinkjob: Call,
        jobs: FlinkJobs,
        grant: Callable[..., Path],
        command: str,
        rules: list[tuple[str, str]],
        words: str,
    ) -> None:
        jobs.create(status=running())
        jobs.add_token()
        user = grant(("get", "flinkjobs.flinkjob.io"), *rules)
        arguments = ["failover", "--dry-run"] if command == "dry-run" else [command]
        answer = flinkjob(*arguments, "wordcount", "-n", jobs.namespace, "--kubeconfig", user)
        assert answer.code == 1
        last = answer.err.splitlines()[-1]
        assert last.startswith("Error: not allowed: User ")
        assert words in last
        assert jobs.get()["spec"].get("failoverNonce", 0) == 0

    @pytest.mark.parametrize(("command", "verbs", "resources"), told_permissions())
    def test_what_the_documentation_tells_is_enough(
        self,
        flinkjob: Call,
        jobs: FlinkJobs,
        grant: Callable[..., Path],
        leader: Leader,
        command: str,
        verbs: list[str],
        resources: list[list[str]],
    ) -> None:
        jobs.create(status=running())
        jobs.add_token()
        leader.says("GET", f"/jobs/{JOB_ID}/failover-preview", {"epoch": 1, "leader": "me", "verdicts": {}})
        leader.says("PATCH", f"/jobs/{JOB_ID}", {}, status=202)
        pairs = [(one, resource) for one, each in zip(verbs, resources, strict=False) for resource in each]
        user = grant(*pairs)
        waiting = {"watch": [], "status": []}.get(command, ["--timeout", "1 s"])
        if command == "watch":
            jobs.say("wordcount", ended("FINISHED"))
        where = ("-n", jobs.namespace, "--kubeconfig", user)
        answer = flinkjob(*command.split(), "wordcount", *waiting, *where)
        assert "not allowed" not in answer.err
        assert answer.code == 0 or "in time" in answer.err or "is still RUNNING" in answer.err


def granted(server: ApiServer, *question: str) -> bool:
    """What ``kubectl auth can-i`` says; a binding counts a moment after it is made."""
    try:
        return server.kubectl(*question).strip() == "yes"
    except subprocess.CalledProcessError:
        return False


class TestJob:
    @pytest.mark.parametrize("command", OF_A_JOB)
    def test_that_is_not_there(self, kubectl: Call, jobs: FlinkJobs, command: list[str]) -> None:
        said = sentence(kubectl(*command), 2)
        assert said == f"there is no FlinkJob 'wordcount' in namespace '{jobs.namespace}'"

    @pytest.mark.parametrize(
        "name", ["", "..", "../pods", "a/b", "Wordcount", "wörter", "a" * 64, "%2e%2e", "a?watch=1"]
    )
    def test_whose_name_cannot_be(self, kubectl: Call, name: str) -> None:
        assert "is not a DNS-1123 label" in sentence(kubectl("status", name), 2)

    @pytest.mark.parametrize("namespace", ["../..", "A", "a b"])
    def test_whose_namespace_cannot_be(self, flinkjob: Call, jobs: FlinkJobs, namespace: str) -> None:
        config = ("--kubeconfig", jobs.server.admin_kubeconfig)
        for command in COMMANDS:
            assert "is not a DNS-1123 label" in sentence(flinkjob(*command, "-n", namespace, *config), 2)

    @pytest.mark.parametrize("command", [["cancel"], ["failover"], ["failover", "--dry-run"]])
    @pytest.mark.parametrize(
        ("status", "spec", "words"),
        [
            ({}, {}, "; `flinkjob status` says how it is"),
            (running(leader=None), {}, "; `flinkjob status` says how it is"),
            (
                {"conditions": [condition("Ready", "False", "Suspended", "nothing runs")]},
                {"job": {"state": "suspended", "vertices": [{"name": "a", "task": {"command": ["true"]}}]}},
                "; it is suspended",
            ),
        ],
    )
    def test_that_nobody_leads(
        self,
        kubectl: Call,
        jobs: FlinkJobs,
        command: list[str],
        status: dict[str, Any],
        spec: dict[str, Any],
        words: str,
    ) -> None:
        jobs.create(status=status, **spec)
        assert sentence(kubectl(*command, "wordcount"), 1) == f"nobody leads 'wordcount' at the moment{words}"

    @pytest.mark.parametrize(
        "status", [{"leader": {"pod": "p"}}, {"jobStatus": "RUNNING"}, {"failovers": "many"}, {"conditions": [{}]}]
    )
    def test_of_another_version_than_this_program(
        self, flinkjob: Call, jobs: FlinkJobs, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any]
    ) -> None:
        made = jobs.create()
        monkeypatch.setattr("flinkjob.cli.kube.Kube.get", lambda kube, path: {**made, "status": status})
        config = ("--kubeconfig", jobs.server.admin_kubeconfig)
        said = sentence(flinkjob("status", "wordcount", *config), 1)
        assert said.startswith("FlinkJob 'wordcount' is of another version than this program: ")


class TestLeader:
    def test_whose_pod_is_gone(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create(status=running())
        said = sentence(kubectl("failover", "--dry-run", "wordcount"), 1)
        assert said == "nobody leads 'wordcount' at the moment: the leader's pod 'wordcount-jobmanager-0' is gone"

    def test_that_cannot_be_reached(
        self, kubectl: Call, jobs: FlinkJobs, leader: Leader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs.create(status=running())
        (port,) = free_ports(1)
        monkeypatch.setattr(names, "REST_PORT", port)
        said = sentence(kubectl("failover", "--dry-run", "wordcount"), 1)
        assert said.startswith("the leader's pod 'wordcount-jobmanager-0' cannot be reached by the API server: ")

    def test_to_which_nobody_leads(self, kubectl: Call, jobs: FlinkJobs, leader: Leader) -> None:
        jobs.create(status=running())
        here = f"http://wordcount-jobmanager-0.wordcount-jobmanager.{jobs.namespace}.svc:8081/"
        leader.says("GET", f"/jobs/{JOB_ID}/failover-preview", {}, status=307, Location=here)
        said = sentence(kubectl("failover", "--dry-run", "wordcount"), 1)
        assert said == "JobManager 'wordcount-jobmanager-0' refuses: HTTP status 307"
        assert len(leader.asked) == 3

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (None, "the Secret 'wordcount-rest-token' with the job's REST token is not there (yet)"),
            ({}, "the Secret 'wordcount-rest-token' has no key 'token' with the job's REST token"),
            ({"token": "/w=="}, "the Secret 'wordcount-rest-token' has no key 'token' with the job's REST token"),
        ],
    )
    def test_whose_token_cannot_be_had(
        self, kubectl: Call, jobs: FlinkJobs, data: dict[str, str] | None, words: str
    ) -> None:
        jobs.create(status=running())
        if data is not None:
            body = {"metadata": {"name": "wordcount-rest-token"}, "data": data}
            jobs.server.call("POST", f"/api/v1/namespaces/{jobs.namespace}/secrets", body)
        assert sentence(kubectl("cancel", "wordcount"), 1) == words


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["status", "a", "-A"], "--all-namespaces lists jobs"),
            (["status", "a", "b"], "unexpected extra argument"),
            (["status", "--output", "xml"], "xml"),
            (["cancel", "a", "--timeout", "soon"], "soon"),
            (["cancel", "a", "--timeout", "-1"], "-1"),
            (["failover", "a", "--timeout", "3 parsecs"], "3 parsecs"),
            (["status", "--kubeconfig", "/"], "is a directory"),
            (["watch", "a", "--dry-run"], "--dry-run"),
        ],
    )
    def test_that_are_wrong(self, flinkjob: Call, arguments: list[str], words: str) -> None:
        answer = flinkjob(*arguments)
        assert (answer.code, answer.out) == (2, "")
        assert words in answer.err

    @pytest.mark.parametrize("command", ["watch", "cancel", "failover"])
    def test_that_are_missing(self, flinkjob: Call, command: str) -> None:
        answer = flinkjob(command)
        assert answer.code == 2
        assert f"Usage: flinkjob {command}" in answer.err


class TestPlugin:
    def test_kubectl_finds_it(self, jobs: FlinkJobs, tmp_path: Path) -> None:
        jobs.create(status=ended("FINISHED"))
        plugin = tmp_path / "kubectl-flinkjob"
        plugin.write_text(f"#!{sys.executable}\nfrom flinkjob.cli.main import kubectl_main\nkubectl_main()\n")
        plugin.chmod(0o755)

        def kubectl(*arguments: str) -> "subprocess.CompletedProcess[str]":
            # kubectl looks for plugins on its PATH and hands all that follows the plugin's name on.
            environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
            environment["KUBECONFIG"] = str(jobs.server.admin_kubeconfig)
            command = [str(programs()["kubectl"]), "flinkjob", *arguments]
            return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

        listed = kubectl("status", "-n", jobs.namespace)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "FINISHED" in listed.stdout
        assert kubectl("watch", "wordcount", "-n", jobs.namespace).returncode == 0
        refused = kubectl("cancel", "wordcount", "-n", jobs.namespace)
        assert (refused.returncode, refused.stdout) == (1, "")
        usage = kubectl("failover")
        assert usage.returncode == 2
        assert usage.stderr.startswith("Usage: kubectl flinkjob failover [OPTIONS] JOB")
        commands = kubectl("--help").stdout
        for name in ("status", "watch", "cancel", "failover"):
            assert f"\n  {name}" in commands
        assert "\n  run" not in commands

    def test_it_is_installed_under_the_name_that_kubectl_looks_for(self) -> None:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
        assert 'kubectl-flinkjob = "flinkjob.cli.main:kubectl_main"' in text
