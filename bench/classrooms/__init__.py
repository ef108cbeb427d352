"""Simulated classrooms at work: teachers that choose questions, the days they are played over, what came of it."""
