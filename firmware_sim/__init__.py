"""Hardware project to evidence: vectors, C simulation and code-for-code comparison."""
