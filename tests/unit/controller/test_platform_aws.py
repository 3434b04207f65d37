"""What the controller asks of AWS, and what it makes of the answers; moto answers in AWS's place."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from longrun_controller import environment as environments
from longrun_controller.errors import ProblemError
from longrun_controller.platforms import aws
from moto import mock_aws

VALUES: dict[str, Any] = {"name": "unit", "aws_region": "eu-central-1"}
PROBLEMS = [
    ("No valid credential sources found: failed to refresh cached credentials, no EC2 IMDS role found", "no AWS credentials here: log in"),
    ("Unable to locate credentials", "no AWS credentials here: log in"),
    ("failed to get shared config profile, team", "AWS_PROFILE is team, "),
    ("The config profile (team) could not be found", "AWS_PROFILE is team, "),
    ("api error ExpiredToken: The security token included in the request is expired", "have expired: log in"),
    ("Token has expired and refresh failed", "have expired: log in"),
    ("api error InvalidClientTokenId: The security token included in the request is invalid.", "does not accept these credentials"),
    (
        "api error UnauthorizedOperation: User: arn:aws:iam::1:user/ci is not authorized to perform: ec2:RunInstances on resource: *",
        "may not do ec2:RunInstances: ask",
    ),
    ("api error UnauthorizedOperation: You are not authorized to perform this operation.", "may not do that: ask"),
    ("invalid AWS Region: eu-nowhere-1", "no region eu-nowhere-1: "),
    ('Could not connect to the endpoint URL: "https://sts.eu-nowhere-1.amazonaws.com/"', "does not answer: check the network"),
    ("api error VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 32", "quota"),
    ("api error AddressLimitExceeded: The maximum number of addresses has been reached.", "release one"),
    ("api error VpcLimitExceeded: The maximum number of VPCs has been reached.", "aws_subnet_id"),
    ("api error InsufficientInstanceCapacity: We currently do not have sufficient t3.medium capacity", "another type"),
    ("api error InvalidInstanceType: The following supplied instance types do not exist: [t3.tiny]", "aws_instance_type"),
    ("Your query returned no results. Please change your search criteria and try again.", "host_image"),
    ("no matching EC2 Subnet found", "aws_subnet_id"),
    ("api error NoSuchHostedZone: No hosted zone found with ID: Z1", "aws_dns_zone_id"),
    ("creating S3 Bucket (models): BucketAlreadyExists", "another aws_bucket"),
    ("api error InvalidGroup.Duplicate: The security group 'longrun-unit-host' already exists for VPC 'vpc-1'", "longrun.environment"),
    ("api error InvalidParameterValue: New size cannot be smaller than existing size", "put data_size_gb back"),
]


@pytest.fixture(autouse=True)
def nothing_of_this_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:  # noqa: ANN401
    """Keep a developer's own AWS settings out."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture
def ec2(nothing_of_this_machines: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An account with one image and nothing else."""
    assert nothing_of_this_machines is None
    # Reading thousands of images takes seconds.
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    with mock_aws():
        client = boto3.client("ec2", region_name="eu-central-1")
        client.register_image(Name="debian-13")
        yield client


def launch(ec2: Any, name: str) -> str:  # noqa: ANN401
    """Run an instance of an environment and return its id."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "longrun.environment", "Value": name}]}]
    [image] = [image["ImageId"] for image in ec2.describe_images()["Images"]]
    return str(ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags)["Instances"][0]["InstanceId"])


def state(ec2: Any, instance: str) -> str:  # noqa: ANN401
    """Return the state of an instance."""
    return str(ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["State"]["Name"])


@pytest.mark.usefixtures("ec2")
def test_preflight_passes_with_credentials() -> None:
    """What AWS accepts is enough; what the credentials may do shows later."""
    aws.preflight(VALUES)


def refusal(values: dict[str, Any]) -> str:
    """Return what preflight says against these values, which must be one line."""
    with pytest.raises(ProblemError) as caught:
        aws.preflight(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_preflight_without_credentials() -> None:
    """Minutes of work must not end in a missing login."""
    assert refusal(VALUES).startswith("there are no AWS credentials here: log in")


def test_preflight_with_an_unknown_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt profile is not a missing login."""
    monkeypatch.setenv("AWS_PROFILE", "staging")
    assert "AWS_PROFILE is staging" in refusal(VALUES)


def test_preflight_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sits behind a proxy learns that it is the network."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "unit")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert refusal(VALUES).startswith("AWS does not answer")


@pytest.mark.parametrize("region", [None, "", 1])
def test_preflight_without_a_region(region: object) -> None:
    """Terraform asks for the variable only after everything else."""
    assert refusal({"name": "unit", "aws_region": region}).startswith('environments/unit/server.tfvars: `aws_region = "..."` is missing')


def test_stop_and_start(ec2: Any) -> None:  # noqa: ANN401
    """Both wait for what they began, and leave other environments alone."""
    mine, other = launch(ec2, "unit"), launch(ec2, "unit-b")
    assert aws.is_running(VALUES)
    aws.stop(VALUES)
    assert (state(ec2, mine), state(ec2, other)) == ("stopped", "running")
    assert not aws.is_running(VALUES)
    aws.start(VALUES)
    assert (state(ec2, mine), state(ec2, other)) == ("running", "running")
    assert aws.is_running(VALUES)


def test_one_stopped_host_is_not_a_running_server(ec2: Any) -> None:  # noqa: ANN401
    """Half a server answers nobody."""
    ec2.stop_instances(InstanceIds=[launch(ec2, "unit"), launch(ec2, "unit")][:1])
    assert not aws.is_running(VALUES)


def test_nothing_to_stop(ec2: Any) -> None:  # noqa: ANN401
    """A terminated host stays in AWS's lists for an hour, and is none."""
    ec2.terminate_instances(InstanceIds=[launch(ec2, "unit")])
    assert not aws.is_running(VALUES)
    aws.start(VALUES)
    with pytest.raises(ProblemError, match="has no host in eu-central-1: nothing to stop"):
        aws.stop(VALUES)


def test_what_is_started_is_foreseen(ec2: Any) -> None:  # noqa: ANN401
    """A plan says so before it is done, and does not do it; other environments, and what runs, are not named."""
    mine, _, other = launch(ec2, "unit"), launch(ec2, "unit"), launch(ec2, "unit-b")
    assert aws.foresee(VALUES, print) == []
    ec2.stop_instances(InstanceIds=[mine, other])
    assert aws.foresee(VALUES, print) == [f"start instance {mine}"]
    assert state(ec2, mine) == "stopped"
    assert aws.strays(VALUES, set()) == []


def test_leftovers(ec2: Any) -> None:  # noqa: ANN401
    """Whatever costs money or holds data is named, and only what is the environment's."""
    values = {**VALUES, "aws_bucket": "models"}
    assert aws.leftovers(values) == []
    instance, _ = launch(ec2, "unit"), launch(ec2, "unit-b")
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "longrun.environment", "Value": "unit"}]}]
    volume = ec2.create_volume(AvailabilityZone="eu-central-1a", Size=5, TagSpecifications=tags)["VolumeId"]
    boto3.client("s3", region_name="eu-central-1").create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    assert aws.leftovers(values) == [f"instance {instance}", f"volume {volume}", "bucket models"]
    assert aws.leftovers(VALUES) == [f"instance {instance}", f"volume {volume}"]


@pytest.mark.parametrize(("problem", "sentence"), PROBLEMS)
def test_explain(problem: str, sentence: str) -> None:
    """AWS names the error; a person needs to know what to do."""
    explained = aws.explain(problem)
    assert explained is not None
    assert sentence in explained
    assert "{" not in explained


def test_every_explanation_is_tested() -> None:
    """A pattern that matches nothing AWS says helps nobody."""
    assert not [pattern for pattern, _ in aws.EXPLANATIONS if not any(re.search(pattern, problem) for problem, _ in PROBLEMS)]


def test_what_is_not_known_is_not_explained() -> None:
    """A wrong explanation is worse than AWS's own words."""
    assert aws.explain("Error: Invalid function argument") is None


def test_mlflow_is_sent_to_the_bucket_that_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ec2: Any) -> None:  # noqa: ANN401
    """The host's role opens that bucket only; another name would show with the first artifact."""
    assert ec2
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    variables = tmp_path / "unit" / "vars.yml"
    variables.parent.mkdir()
    variables.write_text("mlflow_s3_bucket: other\n")
    with pytest.raises(ProblemError, match="mlflow_s3_bucket: acme-longrun"):
        aws.preflight({**VALUES, "aws_bucket": "acme-longrun"})
    variables.write_text("mlflow_s3_bucket: acme-longrun\n")
    aws.preflight({**VALUES, "aws_bucket": "acme-longrun"})
