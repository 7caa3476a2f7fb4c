"""Measuring an erasure."""
