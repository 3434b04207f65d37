"""What a person reads when a playbook fails. The samples are what ansible-core 2.19 prints with our ansible.cfg."""

import pytest
from longrun_controller.playbooks import RECAP, describe, diagnose

RULE = "*" * 70

ASSERTION = f"""
PLAY [Set up MLflow] {RULE}

TASK [mlflow : Refuse values that can't work] {RULE}
[ERROR]: Task failed: Action failed: mlflow_instances=0: at least 1 has to run; it's "so"
Origin: /home/ann/longrun/ansible/roles/mlflow/tasks/preflight.yml:6:7

4   gather_facts: false
5   tasks:
6     - name: Assert
        ^ column 7

fatal: [server]: FAILED! =>{" "}
    assertion: mlflow_instances >= 1
    changed: false
    evaluated_to: false
    msg: 'mlflow_instances=0: at least 1 has to run; it''s "so"'

PLAY RECAP {RULE}
server                     : ok=7    changed=2    unreachable=0    failed=1    skipped=0    rescued=0    ignored=0
"""
LONG = """
TASK [mlflow : Refuse the tables of another MLflow version] ***
fatal: [server]: FAILED! =>
    changed: false
    msg: 'database mlflow is at revision 123456789, MLflow 3.17.2 needs 987654321: deploy
        changes no tables that hold data; put the version in requirements/mlflow.txt back
        and a very long line which goes on and on: really'

PLAY RECAP ***
"""
BLOCK = """
TASK [base : Copy uv's lock file] ***
fatal: [server]: FAILED! =>
    changed: false
    msg: |-
        Unexpected AnsibleActionFail error: Could not find or access 'nofile'
        Searched in:
                /home/ann/longrun/ansible/files/nofile
                /home/ann/longrun/ansible/nofile on the Ansible Controller.
"""
COMMAND = """
TASK [postgresql : Create the cluster] ***
[ERROR]: Task failed: Module failed: non-zero return code
fatal: [server]: FAILED! =>
    changed: true
    cmd:
    - pg_createcluster
    delta: '0:00:00.005365'
    end: '2026-11-24 22:08:05.757679'
    msg: non-zero return code
    rc: 3
    start: '2026-11-24 22:08:05.752314'
    stderr: |-
        a warning
        Error: no such locale
    stderr_lines: <omitted>
    stdout: out
    stdout_lines: <omitted>
"""
LOOP = """
TASK [mlflow : Ask each instance] ***
changed: [server] => (item=0)
[ERROR]: Task failed: Module failed: non-zero return code
Origin: /home/ann/longrun/p.yml:26:7

failed: [server] (item=4) =>
    ansible_loop_var: item
    changed: true
    item: 4
    msg: non-zero return code
    rc: 4
    stderr: '4'
    stdout: ''
failed: [server] (item=5) =>
    ansible_loop_var: item
    changed: true
    item: 5
    msg: non-zero return code
    rc: 5
    stderr: '5'
    stdout: ''
"""
RESCUED = """
TASK [Ask for the health of instance 1] ***
FAILED - RETRYING: [server]: Ask for the health of instance 1 (1 retries left).
[ERROR]: Task failed: Module failed: Status code was -1 and not [200]: Request failed: <urlopen error [Errno 111] Connection refused>
fatal: [server]: FAILED! =>
    changed: false
    elapsed: 0
    msg: 'Status code was -1 and not [200]: Request failed: <urlopen error [Errno 111]
        Connection refused>'
    redirected: false
    status: -1
    url: http://localhost/health

TASK [Read the journal of instance 1] ***
ok: [server]

TASK [Say why it does not answer] ***
fatal: [server]: FAILED! =>
    changed: false
    msg: 'mlflow@1 does not answer; its journal ends with: a | b | c'
"""
IGNORED = """
TASK [Try] ***
fatal: [server]: FAILED! =>
    changed: false
    msg: never mind
...ignoring

TASK [Do] ***
fatal: [server]: FAILED! =>
    changed: false
    msg: this one counts
"""
HIDDEN = """
TASK [mlflow : Write the environment] ***
fatal: [server]: FAILED! =>
    censored: 'the output has been hidden due to the fact that ''no_log: true'' was specified
        for this result'
    changed: true
"""
DELEGATED = """
TASK [minio : Read the checksum that the program was built with] ***
fatal: [server -> localhost]: FAILED! =>
    changed: false
    msg: not here
"""
UNREACHABLE = """
TASK [Look at the host] ***
[ERROR]: Task failed: Failed to connect to the host via ssh: ssh: connect to host 127.0.0.1 port 1: Connection refused
fatal: [gone]: UNREACHABLE! =>
    changed: false
    msg: 'Task failed: Failed to connect to the host via ssh: ssh: connect to host 127.0.0.1
        port 1: Connection refused'
    unreachable: true
"""
CHANGED_KEY = """
TASK [Wait until the host answers] ***
fatal: [server]: UNREACHABLE! =>
    changed: false
    msg: |-
        Task failed: Failed to connect to the host via ssh: @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
        @    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
        @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
    unreachable: true
"""
ON_ONE_LINE = """
TASK [Assert] ***
fatal: [server]: FAILED! => {"assertion": "x == 2", "changed": false, "msg": "x=1: it\\"s \\nnot 2"}
"""
TWO_HOSTS = """
TASK [Install] ***
fatal: [a]: FAILED! =>
    changed: false
    msg: the mirror is away
fatal: [b]: FAILED! =>
    changed: false
    msg: the mirror is away too
"""


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (ASSERTION, """server: mlflow : Refuse values that can't work: mlflow_instances=0: at least 1 has to run; it's "so\""""),
        (
            LONG,
            (
                "server: mlflow : Refuse the tables of another MLflow version: database mlflow is at revision 123456789, MLflow 3.17.2 needs 987654321: "
                "deploy changes no tables that hold data; put the version in requirements/mlflow.txt back and a very long line which goes on and on: really"
            ),
        ),
        (
            BLOCK,
            (
                "server: base : Copy uv's lock file: Unexpected AnsibleActionFail error: Could not find or access 'nofile' Searched in: "
                "/home/ann/longrun/ansible/files/nofile /home/ann/longrun/ansible/nofile on the Ansible Controller."
            ),
        ),
        (COMMAND, "server: postgresql : Create the cluster: status 3: Error: no such locale"),
        (LOOP, "server: mlflow : Ask each instance: status 4: 4"),
        (RESCUED, "server: Say why it does not answer: mlflow@1 does not answer; its journal ends with: a | b | c"),
        (IGNORED, "server: Do: this one counts"),
        (
            HIDDEN,
            (
                "server: mlflow : Write the environment: what it says is hidden, for there may be a secret in it; "
                "with `base_no_log: false` in vars.yml the log shows it"
            ),
        ),
        (DELEGATED, "server: minio : Read the checksum that the program was built with: not here"),
        (
            UNREACHABLE,
            "gone: Look at the host: Task failed: Failed to connect to the host via ssh: ssh: connect to host 127.0.0.1 port 1: Connection refused",
        ),
        (
            CHANGED_KEY,
            (
                "server: Wait until the host answers: its ssh key is not the one it had before: if you made its data volume anew yourself, "
                "delete known_hosts in the environment's folder"
            ),
        ),
        (ON_ONE_LINE, 'server: Assert: x=1: it"s not 2'),
        (TWO_HOSTS, "a: Install: the mirror is away"),
        (
            "[ERROR]: the role 'nope' was not found in /home/ann/longrun/ansible/roles\nOrigin: /home/ann/longrun/p.yml:2:11\n",
            "the role 'nope' was not found in /home/ann/longrun/ansible/roles",
        ),
        ("ERROR! Decryption failed\n", "Decryption failed"),
    ],
    ids=lambda value: None if "\n" in value else value[:40],
)
def test_a_failure_is_one_line(output: str, expected: str) -> None:
    """Host, task and reason, in words that a role's author chose; everything else is in the log."""
    assert diagnose([line.rstrip() for line in output.splitlines()]) == expected


def test_no_failure_is_no_diagnosis() -> None:
    """The step then shows the last line; an invented reason would mislead."""
    assert diagnose(["TASK [Install] ***", "ok: [server]", "changed: [server]"]) is None


def test_a_result_that_cannot_be_read_is_shown_as_it_is() -> None:
    """Another callback or version must not hide the reason."""
    assert diagnose(["TASK [Try] ***", "fatal: [server]: FAILED! => {it: {is: broken"]) == "server: Try: {it: {is: broken"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"TASK [mlflow : Write the unit] {RULE}", "mlflow : Write the unit"),
        ("TASK [Start or restart instance 1] ***", "Start or restart instance 1"),
        ("RUNNING HANDLER [nginx : Reload nginx] *****", "nginx : Reload nginx"),
        ("PLAY [Set up MLflow] ***", None),
        ("ok: [server]", None),
        ("", None),
    ],
)
def test_tasks_are_progress(line: str, expected: str | None) -> None:
    """A long deploy shows what it is doing."""
    assert describe(line) == expected


def test_changes_are_counted() -> None:
    """`make up` says "nothing changed" from this line alone."""
    found = RECAP.match("server                     : ok=31   changed=4    unreachable=0    failed=0    skipped=2    rescued=0    ignored=0   ")
    assert found
    assert (found[1], found[3]) == ("server", "4")
