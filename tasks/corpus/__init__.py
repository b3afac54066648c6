"""The corpus: rows of the user's files into documents, chunks and vectors, with every refusal on record."""
