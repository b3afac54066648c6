"""Where things live: tables and their schemas, refs and digests, vectors, dataset versions, MLflow."""
