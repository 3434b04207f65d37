"""One module a verb: what its options are, and what it prints."""
