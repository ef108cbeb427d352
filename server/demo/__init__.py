"""What `genie demo` serves: a bundled curriculum and a simulated classroom. Not used by the server proper."""
