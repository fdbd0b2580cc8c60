"""The failover of a JobManager as a non-event: an operation log, its replay, and reconciliation with the TaskManagers."""
