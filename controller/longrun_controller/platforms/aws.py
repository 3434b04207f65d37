"""The aws platform: EC2 instances, found by the tag that Terraform gives everything of an environment."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from longrun_controller import environment as environments
from longrun_controller.errors import ProblemError

# The resources that hold the history, and which only `make destroy` may remove.
PROTECTED = ("aws_ebs_volume.data", "aws_s3_bucket.artifacts")
HOST = "aws_instance"
PROVIDER = "provider-aws"
PACKAGES: dict[str, str] = {}
PREPARED: dict[str, str] = {}
LOG_IN = "log in (`aws sso login`), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
# What boto3 or the provider says, and what it means for people; {0} is what the pattern's group found.
EXPLANATIONS = (
    (r"No valid credential sources|Unable to locate credentials", f"there are no AWS credentials here: {LOG_IN}"),
    (
        r"shared config profile, ([\w.-]+)|config profile \(([^)]+)\)",
        "AWS_PROFILE is {0}, which ~/.aws/config does not have: set another, or `aws configure sso`",
    ),
    (r"ExpiredToken|RequestExpired|[Tt]oken (?:has|is) expired|InvalidGrantException", f"the AWS credentials have expired: {LOG_IN}"),
    (
        r"InvalidClientTokenId|UnrecognizedClientException|AuthFailure|InvalidAccessKeyId|SignatureDoesNotMatch|OptInRequired",
        f"AWS does not accept these credentials in this region: {LOG_IN}; aws_region must be enabled in the account",
    ),
    (r"not authorized to perform: ([\w:*]+)", "these AWS credentials may not do {0}: ask whoever runs the account for that permission, or use others"),
    (r"UnauthorizedOperation|AccessDenied", "these AWS credentials may not do that: ask whoever runs the account for permission, or use others"),
    (r"[Ii]nvalid AWS Region: ([\w-]+)", "AWS has no region {0}: put aws_region right"),
    (r"request send failed|Could not connect to the endpoint URL|Connect timeout", "AWS does not answer: check the network, HTTPS_PROXY and aws_region"),
    (
        r"VcpuLimitExceeded|InstanceLimitExceeded",
        "the AWS account may not run more instances of this size: ask AWS for a higher quota (Service Quotas, EC2), or take a smaller aws_instance_type",
    ),
    (r"AddressLimitExceeded", "the AWS account may have no more elastic addresses in this region: release one, or ask AWS for a higher quota"),
    (r"VpcLimitExceeded", "the AWS account may have no more VPCs in this region: name a subnet in aws_subnet_id, or ask AWS for a higher quota"),
    (r"InsufficientInstanceCapacity", "AWS has no room for this aws_instance_type right now: run it again later, or take another type"),
    (r"InvalidInstanceType|no matching EC2 Instance Type|Unsupported: ", "AWS does not offer this aws_instance_type here: take another, such as t3.medium"),
    (r"returned no results|InvalidAMIID", "AWS has no such image in this region: put host_image right, or leave it out for Debian's"),
    (r"no matching EC2 Subnet|InvalidSubnetI[Dd]", "aws_subnet_id is no subnet of this account and region: put it or aws_region right"),
    (r"NoSuchHostedZone", "aws_dns_zone_id is no hosted zone of this account: put it right"),
    (r"BucketAlreadyExists|BucketAlreadyOwnedByYou", "there already is a bucket of that name: take another aws_bucket"),
    (
        r"InvalidGroup\.Duplicate|InvalidIPAddress\.InUse|EntityAlreadyExists",
        "AWS has part of an environment of this name that Terraform's state here does not: bring its state, or remove it in AWS (tag longrun.environment)",
    ),
    (r"[Nn]ew size cannot be smaller|size to decrease", "a data volume can grow, never shrink: put data_size_gb back"),
)

Values = dict[str, Any]


def explain(problem: str) -> str | None:
    """Return what an error text of AWS or its provider means and what to do, where it is known."""
    for pattern, sentence in EXPLANATIONS:
        if found := re.search(pattern, problem):
            return sentence.format(*(group for group in found.groups() if group))
    return None


def _client(values: Values, service: str) -> Any:  # noqa: ANN401 - boto3 makes its clients' classes when it runs
    """Return a client for a service in the environment's region.

    Raises:
        ProblemError: server.tfvars names no region, or AWS_PROFILE an unknown profile.
    """
    region = values.get("aws_region")
    if not isinstance(region, str) or not region:
        message = f'environments/{values["name"]}/server.tfvars: `aws_region = "..."` is missing; write a region such as eu-central-1'
        raise ProblemError(message)
    return boto3.client(service, region_name=region)


@contextmanager
def _problems() -> Iterator[None]:
    """Turn what boto3 raises into a sentence for people."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        message = explain(str(error)) or f"AWS: {error}"
        raise ProblemError(message) from None


def preflight(values: Values) -> None:
    """Ask AWS who we are, before anything is made.

    Raises:
        ProblemError: No region, no credentials, or none that AWS accepts; or MLflow would be sent to another bucket than is made.
    """
    variables = environments.ENVIRONMENTS / str(values["name"]) / "vars.yml"
    if (bucket := values.get("aws_bucket")) and environments.load_yaml(variables).get("mlflow_s3_bucket") != bucket:
        message = f"environments/{values['name']}/vars.yml must say `mlflow_s3_bucket: {bucket}`, as aws_bucket in server.tfvars does"
        raise ProblemError(message)
    with _problems():
        _client(values, "sts").get_caller_identity()


def prepare(_values: Values, _say: Callable[[str], None]) -> None:
    """Do nothing: AWS has all that a host is made of."""


def foresee(values: Values, _say: Callable[[str], None]) -> list[str]:
    """Return what `start` would do."""
    with _problems():
        return [f"start instance {name}" for name, state in sorted(_instances(values).items()) if state in ("stopping", "stopped")]


def strays(_values: Values, _known: set[str]) -> list[str]:
    """Find none: an instance that this state does not hold may be in a colleague's; `explain` says what to do."""
    return []


def discard(_values: Values, _known: set[str]) -> list[str]:
    """Remove nothing, as there are no strays."""
    return []


def terraform_variables(_directory: Path, _values: Values) -> dict[str, str]:
    """Return what Terraform is told beside `server.tfvars`."""
    return {}


def process_environment() -> dict[str, str]:
    """Return the environment variables that the provider reads: it finds its credentials itself."""
    return {}


def _tagged(values: Values) -> list[dict[str, Any]]:
    """Return the filter for what belongs to the environment."""
    return [{"Name": "tag:longrun.environment", "Values": [values["name"]]}]


def _instances(values: Values) -> dict[str, str]:
    """Return id and state of the environment's instances, without those that were terminated."""
    pages = _client(values, "ec2").get_paginator("describe_instances").paginate(Filters=_tagged(values))
    found = {
        instance["InstanceId"]: str(instance["State"]["Name"])
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }
    return {name: state for name, state in found.items() if state not in ("terminated", "shutting-down")}


def is_running(values: Values) -> bool:
    """Return whether every host of the environment runs; False where there is none."""
    with _problems():
        states = _instances(values).values()
    return bool(states) and all(state == "running" for state in states)


def start(values: Values) -> None:
    """Start the hosts that exist and are stopped, and wait until they run."""
    with _problems():
        instances, ec2 = _instances(values), _client(values, "ec2")
        if stopping := [name for name, state in instances.items() if state == "stopping"]:
            ec2.get_waiter("instance_stopped").wait(InstanceIds=stopping)
        if stopped := [name for name, state in instances.items() if state in ("stopping", "stopped")]:
            ec2.start_instances(InstanceIds=stopped)
            ec2.get_waiter("instance_running").wait(InstanceIds=stopped)


def stop(values: Values) -> None:
    """Stop the hosts and wait until they are; systemd stops its services in order.

    Raises:
        ProblemError: There is nothing to stop.
    """
    with _problems():
        instances, ec2 = list(_instances(values)), _client(values, "ec2")
        if not instances:
            message = f"environment {values['name']!r} has no host in {values['aws_region']}: nothing to stop"
            raise ProblemError(message)
        ec2.stop_instances(InstanceIds=instances)
        ec2.get_waiter("instance_stopped").wait(InstanceIds=instances)


def leftovers(values: Values) -> list[str]:
    """Return what AWS still holds of the environment: instances, volumes, addresses, networks, the bucket and its role."""
    left: list[str] = []
    with _problems():
        ec2 = _client(values, "ec2")
        left += [f"instance {name}" for name in _instances(values)]
        for kind, operation, key, name in (
            ("volume", "describe_volumes", "Volumes", "VolumeId"),
            ("address", "describe_addresses", "Addresses", "PublicIp"),
            ("security group", "describe_security_groups", "SecurityGroups", "GroupId"),
            ("subnet", "describe_subnets", "Subnets", "SubnetId"),
            ("internet gateway", "describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
            ("VPC", "describe_vpcs", "Vpcs", "VpcId"),
        ):
            left += [f"{kind} {entry[name]}" for entry in getattr(ec2, operation)(Filters=_tagged(values))[key]]
        if bucket := values.get("aws_bucket"):
            left += _there("bucket", str(bucket), "404", lambda: _client(values, "s3").head_bucket(Bucket=bucket))
            role = f"longrun-{values['name']}"
            left += _there("role", role, "NoSuchEntity", lambda: _client(values, "iam").get_role(RoleName=role))
    return left


def _there(kind: str, name: str, missing: str, ask: Callable[[], Any]) -> list[str]:
    """Return what is asked for, if AWS does not answer that it is missing."""
    try:
        ask()
    except ClientError as error:
        if error.response["Error"]["Code"] == missing:
            return []
        raise
    return [f"{kind} {name}"]
