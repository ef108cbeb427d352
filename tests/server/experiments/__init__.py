"""Tests of the experiment service and its junction."""
