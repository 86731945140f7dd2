"""Verification of a hardware project: vectors, C simulation and code-for-code comparison."""
