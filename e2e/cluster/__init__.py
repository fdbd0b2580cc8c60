"""A real Kubernetes cluster for the end-to-end suite, and the programs that it and the tests' API server are made of.

``python -m cluster up`` gives a kind cluster of one control plane and two workers. Where no image can be pulled, all are
made from packages first and kept in the user's cache by their versions; where no engine answers, one is started for it.
"""
