"""Several recipes at equal tokens, compared."""
