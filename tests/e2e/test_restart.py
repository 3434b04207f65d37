"""A server that is stopped, and one whose host is replaced, keeps everything that was recorded."""

import re
from pathlib import Path

from longrun_controller.platforms import container

from tests.e2e.conftest import OTHER_IMAGE
from tests.servers import Server, artifacts_of, hurried, run, runs_of


def test_down_and_up_keep_everything(server: Server) -> None:
    """Stopped and started again, the server has every run, user and artifact."""
    client = server.client()
    runs = runs_of(client, "diabetes")
    artifacts = artifacts_of(client, runs[-1])
    users = server.status()["history"]["users"]
    server.make("down")
    failed = server.make("status", check=False)
    assert failed.status != 0
    assert "stopped" in failed.text
    server.make("provision", environment=hurried())
    # The second half by hand, as the README shows it: source .venv/bin/activate && cd ansible && ansible-playbook deploy.yml
    by_hand = "source .venv/bin/activate && cd ansible && ansible-playbook deploy.yml"
    played = run(["bash", "-c", by_hand], environment={"LONGRUN_ENV": server.name}, log=server.log)
    assert re.search(r"failed=0", played.stdout)
    assert runs_of(client, "diabetes") == runs
    assert artifacts_of(client, runs[-1]) == artifacts
    assert server.status()["history"]["users"] == users


def test_replaced_host_keeps_the_data(server: Server, tmp_path: Path) -> None:
    """Another host in the old one's place, with another image and more memory: its volume, and with it every run, user and artifact, stays."""
    client = server.client()
    runs = runs_of(client, "diabetes")
    artifacts = artifacts_of(client, runs[-1])
    recipe = tmp_path / "Containerfile"
    recipe.write_text(f"FROM {container.image_tag(13)}\nRUN echo other > /etc/longrun-image\n")
    run(["podman", "build", "--quiet", "--file", recipe, "--tag", OTHER_IMAGE, tmp_path])
    before = run(["podman", "inspect", "--format", "{{.Id}}", server.host]).stdout
    server.edit("server.tfvars", r"(?m)\Z", f'memory_mb  = 4000\nhost_image = "{OTHER_IMAGE}"\n')
    server.make("provision", environment=hurried())
    assert run(["podman", "inspect", "--format", "{{.Id}}", server.host]).stdout != before
    assert server.shell("cat /etc/longrun-image") == "other\n"
    server.make("deploy", environment=hurried())
    assert runs_of(client, "diabetes") == runs
    assert artifacts_of(client, runs[-1]) == artifacts
