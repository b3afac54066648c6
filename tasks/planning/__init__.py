"""What a campaign will take, before anything is computed."""
