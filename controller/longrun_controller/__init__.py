"""Provisions, deploys and looks after a longrun server; every verb of the Makefile is one of its commands."""
