"""A standing installation: Prefect server, MLflow server and workers that go on until they are stopped.

policylong up       flows.standing.control starts flows.standing.supervisor, which starts and watches the rest
policylong down     flows.standing.control ends every process that carries the installation's mark
"""
