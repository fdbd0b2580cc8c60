{{- /*
What the operator may do in each namespace that it watches. The kinds are those of a FlinkJob's children; nothing
cluster-scoped is among them. `create` and `patch` belong together: a child is made, and kept, by server-side apply.
*/}}
{{- define "flinkjob-operator.rules" -}}
# The jobs: seen by list and watch; the finalizer comes and goes by patch; one whose time to live is over is deleted.
- apiGroups: [flinkjob.io]
  resources: [flinkjobs]
  verbs: [get, list, watch, patch, delete]
# What the operator found out about a job.
- apiGroups: [flinkjob.io]
  resources: [flinkjobs/status]
  verbs: [get, patch]
# Children block their owner's foreground deletion; where OwnerReferencesPermissionEnforcement is on, this allows to say so.
- apiGroups: [flinkjob.io]
  resources: [flinkjobs/finalizers]
  verbs: [update]
# TaskManagers are the operator's own pods, and it looks for the one that was lost. JobManagers' pods are deleted for a
# clean handover.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# The job's manifest, and the JobManagers' addresses.
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
# Certificates and the REST token of each job. By name only: the operator never lists or watches Secrets.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
# Whether a job's claim can be mounted on several nodes; one that cannot keeps standbys waiting, and the job says so.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
# The accounts under which a job's pods run.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# What a JobManager may do, bound to its account. The API server lets nobody grant more than he has, so all that is in
# such a Role is among these rules too; `bind` and `escalate` are not needed.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
# The JobManagers.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# A drain takes one JobManager at a time.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# The leader's Lease: made, watched, and emptied when the leader's pod is dead. JobManagers update their own.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update, patch, delete]
# What happened to a job, as Events; JobManagers tell theirs in either API.
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
