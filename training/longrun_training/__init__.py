"""Trains models against an MLflow tracking server; every verb of the `longrun` command line is one of its modules."""
