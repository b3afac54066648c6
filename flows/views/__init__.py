"""What commands print: tables, traces, texts of documents made harmless for a terminal."""
