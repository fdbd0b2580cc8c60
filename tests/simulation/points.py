"""Where a process can die or be stopped: between any two steps of what it does, by the names of what the product does there.

A JobManager's are those at which ``election.runner``, ``jobmanager.term``, ``oplog.writer`` and ``jobmanager.connections``
await something, or hand something to a thread; a TaskManager's lie between what ``taskmanager.agent`` hears, does and says.
"""

JOBMANAGER = (
    # election.runner: a call to the lease's store is on its way, its answer is there; what fences the leader has answered
    "lease asked", "lease answered", "fence asked", "elected",
    # term.open: the steps of OperationLog.open, of the replay, and of the writer's beginning
    "claimed", "fenced", "looked", "replayed", "settled", "opened",
    # term.dispatch, and the effects that go on in the background
    "decided", "appended", "released", "splits found", "partitions checked", "result stored",
    # oplog.committer: a block
    "block made", "torn", "written", "synced", "checked", "segment begun", "given up",
    # oplog.writer: a snapshot
    "snapshot made", "snapshot stored", "rolled", "trimmed",
    # connections
    "register heard", "registered", "heard", "left",
    # process: a clean stop
    "stopping", "flushed", "releasing",
)  # fmt: skip
SUCCESSOR = ("elected", "claimed", "fenced", "looked", "replayed", "settled", "opened")
"""What a new leader comes through before it acts."""
TASKMANAGER = (
    "connected", "heard", "obeyed", "starting", "started", "produced", "reporting", "said", "cancelling", "leaving",
)  # fmt: skip
FREQUENT = {
    "lease asked", "lease answered", "decided", "appended", "released", "block made", "written", "synced", "checked",
    "registered", "heard", "obeyed", "starting", "started", "produced", "reporting", "said",
}  # fmt: skip
"""Points that are passed often: somebody may get past them some times before it dies there."""
