"""The steps of a round: pure functions, each with a thin checkpointed Prefect task."""
