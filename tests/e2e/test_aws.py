"""The aws platform from the first plan to destroy, against moto, which answers as AWS does: no account, no costs.

moto starts no machine, so this ends with Terraform; what Ansible does to a host is tested on the other platforms.
Tests run in the order they stand here: each begins with what the one before left.
"""

import base64
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from longrun_controller import environment as environments
from longrun_controller import secrets, terraform, tools
from longrun_controller.environment import Environment
from longrun_controller.errors import ProblemError
from longrun_controller.platforms import aws
from longrun_controller.progress import Step
from longrun_controller.terraform import Terraform
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance
from moto.server import ThreadedMotoServer

from tests.e2e.conftest import fresh
from tests.servers import say

NAME = "e2e-aws"
REGION = "eu-central-1"
DEBIAN = "136693071363"
VALUES = f"""\
platform           = "aws"
name               = "{NAME}"
aws_region         = "{REGION}"
aws_ssh_networks   = ["203.0.113.7/32"]
aws_https_networks = ["203.0.113.0/24", "198.51.100.0/24"]
"""
BUCKET = "longrun-e2e-artifacts"


@dataclass
class Account:
    """What AWS holds, and the environment that Terraform makes there."""

    environment: Environment
    source: Path
    step: Step

    def write(self, **values: object) -> None:
        """Write server.tfvars anew, with these values beside the usual ones."""
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        (self.environment.directory / "server.tfvars").write_text(VALUES + lines)
        self.environment = Environment.load(NAME)

    def apply(self, **values: object) -> bool:
        """Apply with these values and return whether anything had to change."""
        self.write(**values)
        say(f"aws: apply {values}")
        return Terraform(self.environment).apply(self.step)

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 makes its clients' classes when it runs
        return boto3.client(service, region_name=REGION)

    def instances(self) -> dict[str, dict[str, Any]]:
        """Return the instances that are not terminated, by name."""
        found = self.client("ec2").describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["pending", "running", "stopped"]}])
        return {tag(instance, "Name"): instance for reservation in found["Reservations"] for instance in reservation["Instances"]}

    def volumes(self) -> dict[str, dict[str, Any]]:
        """Return the data volumes by name."""
        volumes = self.client("ec2").describe_volumes()["Volumes"]
        return {name: volume for volume in volumes if (name := tag(volume, "Name")).endswith("-data")}


def tag(resource: dict[str, Any], key: str) -> str:
    """Return a tag's value, or nothing."""
    return next((str(entry["Value"]) for entry in resource.get("Tags", []) if entry["Key"] == key), "")


def release_image(name: str) -> str:
    """Have Debian bring out an image and return its id."""
    image = ec2_backends[DEFAULT_ACCOUNT_ID][REGION].register_image(name)
    image.owner_id = DEBIAN
    return str(image.id)


@pytest.fixture(scope="module")
def account(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An empty AWS account, an environment for it, and a copy of `terraform/` that reaches it."""
    step = Step("aws", fresh(logs / "aws.log"))
    try:
        tools.ensure_provider(step, aws.PROVIDER)
    except ProblemError as problem:
        pytest.skip(f"no Terraform provider for AWS: {problem}")
    source = tmp_path_factory.mktemp("aws") / "terraform"
    shutil.copytree(terraform.SOURCE, source, ignore=shutil.ignore_patterns(".terraform*"))
    # A bucket is part of the host's name otherwise, which nobody resolves here.
    (source / "platforms" / "aws" / "moto_override.tf").write_text('provider "aws" {\n  s3_use_path_style = true\n}\n')
    prepare = Instance.prep_nics

    def prep_nics(instance: Instance, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - moto's own
        prepare(instance, *arguments, **options)
        # As EC2 has it: the instance shows the groups of its interface, and takes interface and address with it when it ends.
        instance.security_groups = instance.nics[0].group_set
        instance.nics[0].delete_on_termination = True

    directory = environments.ENVIRONMENTS / NAME
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for file in ("vars.yml", "users.yml"):
        shutil.copy(environments.ENVIRONMENTS / "local" / file, directory / file)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Instance, "prep_nics", prep_nics)
        patch.setattr(logging.getLogger("werkzeug"), "level", logging.WARNING)
        patch.setattr(terraform, "SOURCE", source)
        for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(key, raising=False)
        for key, value in {
            "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
            "AWS_ACCESS_KEY_ID": "e2e",
            "AWS_SECRET_ACCESS_KEY": "e2e",
            "AWS_EC2_METADATA_DISABLED": "true",
            # An error of moto's own would be tried for ten minutes.
            "AWS_MAX_ATTEMPTS": "3",
        }.items():
            patch.setenv(key, value)
        release_image("debian-13-amd64-20261101-2288")
        (directory / "server.tfvars").write_text(VALUES)
        account = Account(Environment.load(NAME), source, step)
        secrets.ensure(account.environment)
        yield account
    server.stop()
    shutil.rmtree(directory)


def test_it_is_made(account: Account) -> None:
    """One host with its own disk, an address that stays, and the outputs that Ansible reads."""
    aws.preflight(account.environment.values)
    assert account.apply()
    outputs = Terraform(account.environment).outputs()
    [(name, host)] = outputs["hosts"].items()
    [address] = account.client("ec2").describe_addresses()["Addresses"]
    assert name == "server"
    assert host == {
        "address": address["PublicIp"],
        "port": 22,
        "user": "longrun",
        "groups": ["minio", "mlflow", "nginx", "postgresql"],
        "data_path": "/srv/longrun",
        "private_address": account.instances()[f"longrun-{NAME}-server"]["PrivateIpAddress"],
    }
    assert outputs["public_url"] == f"https://{address['PublicIp']}"
    assert aws.is_running(account.environment.values)


def test_the_host_mounts_its_own_volume(account: Account) -> None:
    """The disk's name in user data is that of the volume which is attached, and all disks are encrypted."""
    [instance], [volume] = account.instances().values(), account.volumes().values()
    assert [attachment["InstanceId"] for attachment in volume["Attachments"]] == [instance["InstanceId"]]
    attribute = account.client("ec2").describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
    text = base64.b64decode(attribute["UserData"]["Value"]).decode()
    assert text.startswith("#cloud-config\n")
    assert f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume['VolumeId'].replace('-', '')} " in text
    volumes = account.client("ec2").describe_volumes()["Volumes"]
    assert len(volumes) == 2
    assert all(entry["Encrypted"] and tag(entry, "longrun.environment") == NAME for entry in volumes)


def test_only_the_named_networks_get_in(account: Account) -> None:
    """443 for the clients, 22 for whoever runs make, and nothing else from anywhere."""
    groups = account.client("ec2").describe_security_groups(Filters=[{"Name": "tag:longrun.environment", "Values": [NAME]}])["SecurityGroups"]
    rules = {
        (rule["IpProtocol"], rule.get("FromPort"), network["CidrIp"]) for group in groups for rule in group["IpPermissions"] for network in rule["IpRanges"]
    }
    assert rules == {("tcp", 22, "203.0.113.7/32"), ("tcp", 443, "203.0.113.0/24"), ("tcp", 443, "198.51.100.0/24")}
    inside = [pair["GroupId"] for group in groups for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
    assert inside == [group["GroupId"] for group in groups if group["GroupName"].endswith("-host")]
    [instance] = account.instances().values()
    assert {group["GroupId"] for group in instance["SecurityGroups"]} == {group["GroupId"] for group in groups}
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1


def test_the_second_plan_is_empty(account: Account) -> None:
    """Not even Debian's next image changes a host that runs."""
    assert not account.apply()
    release_image("debian-13-amd64-20261120-2301")
    assert not account.apply()


def test_down_and_up(account: Account) -> None:
    """`make down` stops the host, and Terraform leaves it as it finds it."""
    aws.stop(account.environment.values)
    assert not aws.is_running(account.environment.values)
    assert [instance["State"]["Name"] for instance in account.instances().values()] == ["stopped"]
    assert not account.apply()
    aws.start(account.environment.values)
    assert aws.is_running(account.environment.values)


def test_another_size_keeps_host_and_volume(account: Account) -> None:
    """More memory and more room for the data are had without a new host."""
    before = account.instances(), account.volumes()
    assert account.apply(aws_instance_type="t3.large", data_size_gb=25)
    after = account.instances(), account.volumes()
    for old, new in zip(before, after, strict=True):
        assert [entry.get("InstanceId", entry.get("VolumeId")) for entry in old.values()] == [
            entry.get("InstanceId", entry.get("VolumeId")) for entry in new.values()
        ]
    assert [(instance["InstanceType"], instance["State"]["Name"]) for instance in after[0].values()] == [("t3.large", "running")]
    assert [volume["Size"] for volume in after[1].values()] == [25]


def test_another_image_replaces_the_host_and_keeps_the_volume(account: Account) -> None:
    """The history outlives the host, and so does its address."""
    image = release_image("team-hardened-13")
    before, volumes, outputs = account.instances(), account.volumes(), Terraform(account.environment).outputs()
    assert account.apply(host_image=image)
    [old], [new] = before.values(), account.instances().values()
    assert new["InstanceId"] != old["InstanceId"]
    assert new["ImageId"] == image
    [kept], [volume] = volumes.values(), account.volumes().values()
    assert volume["VolumeId"] == kept["VolumeId"]
    assert [attachment["InstanceId"] for attachment in volume["Attachments"]] == [new["InstanceId"]]
    assert Terraform(account.environment).outputs() == outputs
    assert aws.is_running(account.environment.values)
    assert not account.apply(host_image=image)


def test_no_plan_may_delete_the_volume(account: Account) -> None:
    """Neither with Terraform's own guard nor after somebody took it out."""
    hosts = {"other": {"groups": ["postgresql", "minio", "mlflow", "nginx"]}}
    before = account.instances(), account.volumes()
    with pytest.raises(ProblemError, match=r'aws_ebs_volume\.data\["server"\]'):
        account.apply(hosts=hosts)
    main = account.source / "platforms" / "aws" / "main.tf"
    guarded = main.read_text()
    unguarded, count = re.subn(r"(?m)^ *prevent_destroy = true\n", "", guarded)
    assert count == len(aws.PROTECTED)
    main.write_text(unguarded)
    with pytest.raises(ProblemError, match=r'aws_ebs_volume\.data\["server"\]'):
        account.apply(hosts=hosts)
    main.write_text(guarded)
    assert (account.instances(), account.volumes()) == before


def test_destroy_leaves_nothing(account: Account) -> None:
    """`make destroy` removes the network too, and whatever costs money."""
    ec2 = account.client("ec2")
    left = aws.leftovers(account.environment.values)
    assert {entry.rsplit(" ", 1)[0] for entry in left} == {"instance", "volume", "address", "security group", "subnet", "internet gateway", "VPC"}
    say("aws: destroy")
    Terraform(account.environment).destroy(account.step)
    assert aws.leftovers(account.environment.values) == []
    assert account.instances() == {}
    assert ec2.describe_volumes()["Volumes"] == []
    assert ec2.describe_addresses()["Addresses"] == []
    assert all(vpc["IsDefault"] for vpc in ec2.describe_vpcs()["Vpcs"])
    assert not account.environment.state.exists()


def test_two_hosts_a_bucket_and_the_teams_own_network(account: Account) -> None:
    """Only one host is reached by HTTPS, only MLflow's has the bucket's keys, and neither is public where the team wants none."""
    ec2, route53 = account.client("ec2"), account.client("route53")
    vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.3.0/24", AvailabilityZone=f"{REGION}b")["Subnet"]["SubnetId"]
    zone = route53.create_hosted_zone(Name="example.org", CallerReference="e2e")["HostedZone"]["Id"].rsplit("/", 1)[1]
    values = {
        "hosts": {"server": {"groups": ["mlflow", "nginx"]}, "store": {"groups": ["postgresql"]}},
        "aws_subnet_id": subnet,
        "aws_public_address": False,
        "aws_bucket": BUCKET,
        "aws_dns_zone_id": zone,
        "server_name": "mlflow.example.org",
    }
    assert account.apply(**values)
    assert not account.apply(**values)
    outputs = Terraform(account.environment).outputs()
    assert outputs["public_url"] == "https://mlflow.example.org"
    for host in outputs["hosts"].values():
        assert host["address"] == host["private_address"]
        assert host["address"].startswith("10.77.3.")
    assert ec2.describe_addresses()["Addresses"] == []
    assert {volume["AvailabilityZone"] for volume in account.volumes().values()} == {f"{REGION}b"}
    records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert [entry["Value"] for record in records if record["Type"] == "A" for entry in record["ResourceRecords"]] == [outputs["hosts"]["server"]["address"]]
    server, store = (account.instances()[f"longrun-{NAME}-{name}"] for name in ("server", "store"))
    assert {group["GroupName"] for group in server["SecurityGroups"]} == {f"longrun-{NAME}-host", f"longrun-{NAME}-nginx"}
    assert {group["GroupName"] for group in store["SecurityGroups"]} == {f"longrun-{NAME}-host"}
    assert server["IamInstanceProfile"]["Arn"].endswith(f"/longrun-{NAME}")
    assert "IamInstanceProfile" not in store


def test_the_bucket_is_closed(account: Account) -> None:
    """Versioned, encrypted, never public, and the role's only one."""
    s3 = account.client("s3")
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert set(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values()) == {True}
    policy = account.client("iam").get_role_policy(RoleName=f"longrun-{NAME}", PolicyName="artifacts")["PolicyDocument"]
    assert {statement["Resource"] for statement in policy["Statement"]} == {f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"}


def test_no_plan_may_delete_the_bucket(account: Account) -> None:
    """A line that goes missing in server.tfvars must not take the artifacts with it."""
    account.client("s3").put_object(Bucket=BUCKET, Key="1/model", Body=b"weights")
    kept = {name: account.environment.values[name] for name in ("aws_subnet_id", "aws_public_address")}
    with pytest.raises(ProblemError, match=r"aws_s3_bucket\.artifacts"):
        account.apply(**kept, hosts={"server": {"groups": ["minio", "mlflow", "nginx"]}, "store": {"groups": ["postgresql"]}})
    assert account.client("s3").get_object(Bucket=BUCKET, Key="1/model")["Body"].read() == b"weights"
    account.write(**kept, hosts={"server": {"groups": ["mlflow", "nginx"]}, "store": {"groups": ["postgresql"]}}, aws_bucket=BUCKET)


def test_destroy_empties_the_bucket_and_keeps_the_teams_network(account: Account) -> None:
    """What others made stays; a full bucket goes, for that is what was asked for."""
    assert {"bucket", "role"} <= {entry.rsplit(" ", 1)[0] for entry in aws.leftovers(account.environment.values)}
    subnet = account.environment.values["aws_subnet_id"]
    say("aws: destroy")
    Terraform(account.environment).destroy(account.step)
    assert aws.leftovers(account.environment.values) == []
    assert account.client("s3").list_buckets()["Buckets"] == []
    assert account.client("iam").list_roles()["Roles"] == []
    assert account.client("iam").list_instance_profiles()["InstanceProfiles"] == []
    assert account.client("ec2").describe_subnets(SubnetIds=[subnet])["Subnets"][0]["State"] == "available"


def test_the_state_lies_in_a_bucket(account: Account) -> None:
    """The backend that terraform/README.md shows: the state leaves this machine, and its lock goes when the work is done."""
    [example] = re.findall(r"(?s)```hcl\n(terraform \{.*?)```", (environments.ROOT / "terraform" / "README.md").read_text())
    bucket, key = (re.search(rf'{name}\s+= "(.+)"', example)[1] for name in ("bucket", "key"))  # type: ignore[index]
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    directory = account.environment.directory
    (directory / "backend.tf").write_text(example.replace("    bucket ", "    use_path_style = true\n    bucket "))
    assert account.apply()
    assert not account.environment.state.exists()
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    shutil.rmtree(directory / ".terraform")
    # As a colleague's clone begins.
    assert not account.apply()
    assert set(Terraform(account.environment).outputs()) == {"hosts", "public_url"}
    s3.put_object(Bucket=bucket, Key=f"{key}.tflock", Body=b'{"ID": "1", "Who": "a colleague"}')
    with pytest.raises(ProblemError, match="lock"):
        account.apply(data_size_gb=30)
    s3.delete_object(Bucket=bucket, Key=f"{key}.tflock")
    say("aws: destroy")
    Terraform(account.environment).destroy(account.step)
    assert aws.leftovers(account.environment.values) == []
