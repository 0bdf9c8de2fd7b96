"""Rewrites as the identities they state, by subject; each file names the pass that they belong to."""
