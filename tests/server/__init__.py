"""Tests of Genie."""
