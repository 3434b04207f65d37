# What is planned, without an account: the provider is a mock, and these are its answers. What has no value before it is made,
# such as an address, a group's id or user data, which names the volume, is looked at in tests/e2e/test_aws.py.
mock_provider "aws" {
  mock_data "aws_ec2_instance_type" {
    defaults = {
      memory_size             = 4096
      default_vcpus           = 2
      supported_architectures = ["x86_64"]
      ebs_nvme_support        = "required"
    }
  }
  mock_data "aws_ec2_instance_type_offerings" {
    defaults = { locations = ["eu-central-1c", "eu-central-1-ham-1a", "eu-central-1b"] }
  }
  mock_data "aws_subnet" {
    defaults = { vpc_id = "vpc-0given", availability_zone = "eu-central-1a" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0debian" }
  }
}

variables {
  platform           = "aws"
  name               = "unit"
  aws_region         = "eu-central-1"
  aws_ssh_networks   = ["203.0.113.7/32"]
  aws_https_networks = ["203.0.113.0/24"]
  ssh_public_key     = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVhc3k longrun-unit"
}

run "one_host_carries_everything" {
  command = plan

  assert {
    condition     = keys(aws_instance.host) == ["server"] && keys(aws_ebs_volume.data) == ["server"] && keys(aws_eip.host) == ["server"]
    error_message = "The default is one host, called server, with one data volume and one address."
  }
  assert {
    condition     = aws_instance.host["server"].tags.Name == "longrun-unit-server" && aws_ebs_volume.data["server"].tags.Name == "longrun-unit-server-data" && aws_vpc.this[0].tags.Name == "longrun-unit"
    error_message = "Everything must bear the environment's name, or two environments meet."
  }
  assert {
    condition     = output.hosts["server"].groups == tolist(["minio", "mlflow", "nginx", "postgresql"]) && output.hosts["server"].data_path == "/srv/longrun"
    error_message = "The one host carries all groups, its data at /srv/longrun."
  }
  assert {
    condition     = output.hosts["server"].port == 22 && output.hosts["server"].user == "longrun"
    error_message = "Ansible reaches the host by ssh, as longrun."
  }
  assert {
    condition     = length(aws_s3_bucket.artifacts) + length(aws_iam_role.artifacts) + length(aws_route53_record.server) == 0
    error_message = "Bucket, role and DNS record are for those who ask for them."
  }
}

run "nothing_but_https_and_ssh_is_reachable" {
  command = plan

  assert {
    condition     = [for rule in aws_security_group.nginx.ingress : "${rule.protocol} ${rule.from_port}-${rule.to_port} ${join(",", rule.cidr_blocks)}"] == ["tcp 443-443 203.0.113.0/24"]
    error_message = "Clients reach 443 from their networks, and nothing else."
  }
  assert {
    condition     = toset([for rule in aws_security_group.host.ingress : "${rule.protocol} ${rule.from_port}-${rule.to_port} ${join(",", rule.cidr_blocks)}" if rule.self != true]) == toset(["tcp 22-22 203.0.113.7/32"])
    error_message = "From outside, hosts are reached by ssh only, from the named networks."
  }
  assert {
    condition     = length([for rule in aws_security_group.host.ingress : rule if rule.self == true]) == 1
    error_message = "Hosts of one environment reach each other."
  }
}

run "the_host_is_hardened" {
  command = plan

  assert {
    condition     = one(aws_instance.host["server"].metadata_options).http_tokens == "required" && one(aws_instance.host["server"].metadata_options).http_put_response_hop_limit == 1
    error_message = "Without sessions, a forged request from the host wins the role's keys."
  }
  assert {
    condition     = one(aws_instance.host["server"].root_block_device).encrypted && aws_ebs_volume.data["server"].encrypted
    error_message = "No disk may be readable outside the account."
  }
}

run "the_data_is_on_the_volume" {
  command = plan

  assert {
    condition     = aws_volume_attachment.data["server"].stop_instance_before_detaching
    error_message = "The volume is taken from a host only once that has closed its files."
  }
  assert {
    condition     = aws_ebs_volume.data["server"].size == 20 && aws_ebs_volume.data["server"].type == "gp3"
    error_message = "Without a volume of its own, replacing the host would delete the history."
  }
}

run "debian_is_found" {
  command = plan

  assert {
    condition     = data.aws_ami.debian[0].owners == tolist(["136693071363"]) && one(one(data.aws_ami.debian[0].filter).values) == "debian-13-amd64-*"
    error_message = "The image must be Debian's own, of the release that was asked for."
  }
  assert {
    condition     = aws_instance.host["server"].ami == "ami-0debian" && local.image == "debian-13"
    error_message = "User data names the release, so that another one replaces the host."
  }
  assert {
    condition     = aws_instance.host["server"].user_data_replace_on_change
    error_message = "cloud-init reads user data at the first boot only, so another one needs another host."
  }
}

run "an_image_of_the_teams_own" {
  command = plan

  variables {
    host_image = "ami-0123456789abcdef0"
  }

  assert {
    condition     = aws_instance.host["server"].ami == "ami-0123456789abcdef0" && local.image == "ami-0123456789abcdef0"
    error_message = "The image that was asked for is the one that is used, and naming another replaces the host."
  }
  assert {
    condition     = length(data.aws_ami.debian) == 0
    error_message = "Nobody needs Debian's image where another is named."
  }
}

run "two_hosts_share_the_work" {
  command = plan

  variables {
    hosts = {
      web  = { groups = ["mlflow", "nginx"] }
      data = { groups = ["postgresql", "minio"] }
    }
    subnet = "10.200.7.0/24"
  }

  assert {
    condition     = { for name, host in aws_instance.host : name => host.private_ip } == { data = "10.200.7.10", web = "10.200.7.11" }
    error_message = "Each host needs a private address of its own."
  }
  assert {
    condition     = local.entrance == "web"
    error_message = "The host with nginx is the one that clients reach."
  }
  assert {
    condition     = length(aws_ebs_volume.data) == 2 && length(aws_volume_attachment.data) == 2 && length(aws_eip.host) == 2
    error_message = "Each host needs a data volume and an address of its own."
  }
}

run "the_network_is_drawn_from_the_name" {
  command = plan

  assert {
    condition     = aws_vpc.this[0].cidr_block == "10.216.92.0/24" && aws_subnet.this[0].cidr_block == "10.216.92.0/24" && aws_instance.host["server"].private_ip == "10.216.92.10"
    error_message = "The network must lie in 10.192.0.0/11, where few others are, and stay the same for a name."
  }
  assert {
    condition     = aws_subnet.this[0].availability_zone == "eu-central-1b"
    error_message = "The hosts belong into a zone that has the instance type; a local zone has neither gp3 nor elastic addresses."
  }
}

run "another_name_is_another_network" {
  command = plan

  variables {
    name = "other"
  }

  assert {
    condition     = aws_vpc.this[0].cidr_block == "10.217.41.0/24"
    error_message = "Two environments must keep apart, so that their networks can be joined one day."
  }
}

run "a_subnet_of_the_teams_own" {
  command = plan

  variables {
    aws_subnet_id = "subnet-0123456789abcdef0"
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.this) + length(aws_internet_gateway.this) + length(aws_route_table.this) == 0
    error_message = "Where there is a network, none is made."
  }
  assert {
    condition     = aws_instance.host["server"].subnet_id == "subnet-0123456789abcdef0" && aws_security_group.host.vpc_id == "vpc-0given" && aws_ebs_volume.data["server"].availability_zone == "eu-central-1a"
    error_message = "Host, groups and volume belong into the network that was named."
  }
  assert {
    condition     = length(aws_eip.host) == 1
    error_message = "Hosts get a public address unless that is turned off."
  }
}

run "a_private_subnet" {
  command = plan

  variables {
    aws_subnet_id      = "subnet-0123456789abcdef0"
    aws_public_address = false
  }

  assert {
    condition     = length(aws_eip.host) == 0 && keys(aws_instance.host) == ["server"]
    error_message = "A private host has no public address."
  }
}

run "a_name_in_the_dns" {
  command = plan

  variables {
    server_name     = "mlflow.example.org"
    aws_dns_zone_id = "Z0123456789ABCDEFGHIJ"
  }

  assert {
    condition     = aws_route53_record.server[0].name == "mlflow.example.org" && aws_route53_record.server[0].zone_id == "Z0123456789ABCDEFGHIJ"
    error_message = "The name gets its record in the zone that was named."
  }
  assert {
    condition     = output.public_url == "https://mlflow.example.org"
    error_message = "Clients use the name."
  }
}

run "a_name_that_others_look_after" {
  command = plan

  variables {
    server_name = "mlflow.example.org"
  }

  assert {
    condition     = output.public_url == "https://mlflow.example.org" && length(aws_route53_record.server) == 0
    error_message = "A record is made only in a zone that was named."
  }
}

run "a_bucket_in_minios_place" {
  command = plan

  variables {
    hosts = {
      web  = { groups = ["mlflow", "nginx"] }
      data = { groups = ["postgresql"] }
    }
    aws_bucket = "team-artifacts"
  }

  assert {
    condition     = aws_s3_bucket.artifacts[0].bucket == "team-artifacts" && aws_s3_bucket_versioning.artifacts[0].versioning_configuration[0].status == "Enabled"
    error_message = "What is overwritten or deleted in the bucket must be there still."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.artifacts[0].rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "Artifacts lie encrypted."
  }
  assert {
    condition     = alltrue([for name in ["block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"] : aws_s3_bucket_public_access_block.artifacts[0][name]])
    error_message = "Nobody may ever open the bucket to the world."
  }
  assert {
    condition     = toset([for statement in jsondecode(aws_iam_role_policy.artifacts[0].policy).Statement : statement.Resource]) == toset(["arn:aws:s3:::team-artifacts", "arn:aws:s3:::team-artifacts/*"])
    error_message = "The role may touch this bucket and nothing else."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.artifacts[0].policy, "s3:*") && !strcontains(aws_iam_role_policy.artifacts[0].policy, "DeleteObjectVersion")
    error_message = "A broken-in host must not be able to delete what is versioned."
  }
  assert {
    condition     = aws_instance.host["web"].iam_instance_profile == "longrun-unit"
    error_message = "MLflow's host reaches the bucket by its role."
  }
}
