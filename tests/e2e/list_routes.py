"""Prints every method and path that the server's own MLflow answers, as JSON; runs on the host, as MLflow's user."""

import json
import re

from mlflow.server import app as flask_app
from mlflow.server.auth import create_app

application = create_app(flask_app)
routes: set[tuple[str, str]] = set()
for rule in flask_app.url_map.iter_rules():
    path = re.sub(r"<[^>]+>", "1", rule.rule)
    routes |= {(method, path) for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}}


def walk(router: object, prefix: str = "") -> None:
    """Add the routes of a Starlette application."""
    for route in getattr(router, "routes", []):
        path = prefix + getattr(route, "path", "")
        for method in (getattr(route, "methods", None) or set()) - {"OPTIONS", "HEAD"}:
            routes.add((method, re.sub(r"\{[^}]+\}", "1", path)))


walk(application)
print(json.dumps(sorted(routes)))
