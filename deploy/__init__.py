"""What stands around a running Genie: monitoring. Nothing here is imported by the server."""
