"""Experiments as pure functions: who gets what, what was seen, what may be concluded. No I/O, no clock."""
