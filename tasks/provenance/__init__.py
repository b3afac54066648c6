"""Where a token came from and where a document went; what two versions have in common."""
