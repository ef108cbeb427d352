"""Programs that a caller of Genie can start from."""
