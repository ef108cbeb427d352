"""Durable state of catalogue and learners. Knows engine types, no protobuf."""
