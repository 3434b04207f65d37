# Every value that Terraform refuses before it makes anything: one run for each rule. A test in tests/unit/terraform sees to it
# that each validation has one.
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
    defaults = { locations = ["eu-central-1a"] }
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

run "platform" {
  command = plan

  variables {
    platform = "container"
  }

  expect_failures = [var.platform]
}

run "name_with_capitals" {
  command = plan

  variables {
    name = "Team"
  }

  expect_failures = [var.name]
}

run "name_that_is_too_long" {
  command = plan

  variables {
    name = "a123456789b123456789c123456789d"
  }

  expect_failures = [var.name]
}

run "no_hosts" {
  command = plan

  variables {
    hosts = {}
  }

  expect_failures = [var.hosts]
}

run "unknown_group" {
  command = plan

  variables {
    hosts = { server = { groups = ["mlflow", "nginx", "redis"] } }
  }

  expect_failures = [var.hosts]
}

run "no_nginx" {
  command = plan

  variables {
    hosts = { server = { groups = ["mlflow"] } }
  }

  expect_failures = [var.hosts]
}

run "two_nginx" {
  command = plan

  variables {
    hosts = { a = { groups = ["nginx"] }, b = { groups = ["nginx"] } }
  }

  expect_failures = [var.hosts]
}

run "old_debian" {
  command = plan

  variables {
    debian_release = 11
  }

  expect_failures = [var.debian_release]
}

run "server_name_with_https" {
  command = plan

  variables {
    server_name = "https://mlflow.example.org"
  }

  expect_failures = [var.server_name]
}

run "server_name_with_port" {
  command = plan

  variables {
    server_name = "mlflow.example.org:443"
  }

  expect_failures = [var.server_name]
}

run "listen_address_that_is_a_name" {
  command = plan

  variables {
    listen_address = "localhost"
  }

  expect_failures = [var.listen_address]
}

run "https_port_zero" {
  command = plan

  variables {
    https_port = 0
  }

  expect_failures = [var.https_port]
}

run "https_port_too_high" {
  command = plan

  variables {
    https_port = 65536
  }

  expect_failures = [var.https_port]
}

run "ssh_port_zero" {
  command = plan

  variables {
    ssh_port = 0
  }

  expect_failures = [var.ssh_port]
}

run "ports_that_meet" {
  command = plan

  variables {
    https_port = 8422
  }

  expect_failures = [var.ssh_port]
}

run "little_memory" {
  command = plan

  variables {
    memory_mb = 1024
  }

  expect_failures = [var.memory_mb]
}

run "no_core" {
  command = plan

  variables {
    cores = 0
  }

  expect_failures = [var.cores]
}

run "small_data_volume" {
  command = plan

  variables {
    data_size_gb = 1
  }

  expect_failures = [var.data_size_gb]
}

run "private_key_as_public_key" {
  command = plan

  variables {
    ssh_public_key = "-----BEGIN OPENSSH PRIVATE KEY-----"
  }

  expect_failures = [var.ssh_public_key]
}

run "subnet_that_is_an_address" {
  command = plan

  variables {
    subnet = "10.200.7.1"
  }

  expect_failures = [var.subnet]
}

run "subnet_that_is_too_small" {
  command = plan

  variables {
    subnet = "10.200.7.0/29"
  }

  expect_failures = [var.subnet]
}

run "region_that_is_a_zone" {
  command = plan

  variables {
    aws_region = "eu-central-1a"
  }

  expect_failures = [var.aws_region]
}

run "no_ssh_network" {
  command = plan

  variables {
    aws_ssh_networks = []
  }

  expect_failures = [var.aws_ssh_networks]
}

run "ssh_network_that_is_an_address" {
  command = plan

  variables {
    aws_ssh_networks = ["203.0.113.7"]
  }

  expect_failures = [var.aws_ssh_networks]
}

run "ssh_network_of_ipv6" {
  command = plan

  variables {
    aws_ssh_networks = ["::/0"]
  }

  expect_failures = [var.aws_ssh_networks]
}

run "ssh_from_everywhere" {
  command = plan

  variables {
    aws_ssh_networks = ["203.0.113.7/32", "0.0.0.0/0"]
  }

  expect_failures = [var.aws_ssh_networks]
}

run "no_https_network" {
  command = plan

  variables {
    aws_https_networks = []
  }

  expect_failures = [var.aws_https_networks]
}

run "https_network_that_is_a_name" {
  command = plan

  variables {
    aws_https_networks = ["mlflow.example.org"]
  }

  expect_failures = [var.aws_https_networks]
}

run "https_network_with_host_bits" {
  command = plan

  variables {
    aws_https_networks = ["203.0.113.7/24"]
  }

  expect_failures = [var.aws_https_networks]
}

run "instance_type_without_a_size" {
  command = plan

  variables {
    aws_instance_type = "t3"
  }

  expect_failures = [var.aws_instance_type]
}

run "too_little_memory" {
  command = plan

  variables {
    memory_mb = 8192
  }

  expect_failures = [data.aws_ec2_instance_type.host]
}

run "too_few_cores" {
  command = plan

  variables {
    cores = 4
  }

  expect_failures = [data.aws_ec2_instance_type.host]
}

run "subnet_id_that_is_a_network" {
  command = plan

  variables {
    aws_subnet_id = "10.0.0.0/24"
  }

  expect_failures = [var.aws_subnet_id]
}

run "no_way_out" {
  command = plan

  variables {
    aws_public_address = false
  }

  expect_failures = [var.aws_public_address]
}

run "zone_that_is_a_name" {
  command = plan

  variables {
    server_name     = "mlflow.example.org"
    aws_dns_zone_id = "example.org"
  }

  expect_failures = [var.aws_dns_zone_id]
}

run "zone_without_a_name" {
  command = plan

  variables {
    aws_dns_zone_id = "Z0123456789ABCDEFGHIJ"
  }

  expect_failures = [var.aws_dns_zone_id]
}

run "zone_and_an_address" {
  command = plan

  variables {
    server_name     = "203.0.113.7"
    aws_dns_zone_id = "Z0123456789ABCDEFGHIJ"
  }

  expect_failures = [var.aws_dns_zone_id]
}

run "bucket_with_dots" {
  command = plan

  variables {
    aws_bucket = "team.artifacts"
  }

  expect_failures = [var.aws_bucket]
}

run "no_place_for_artifacts" {
  command = plan

  variables {
    hosts = { server = { groups = ["postgresql", "mlflow", "nginx"] } }
  }

  expect_failures = [var.aws_bucket]
}

run "an_arm_processor" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type.host
    values = { memory_size = 4096, default_vcpus = 2, supported_architectures = ["arm64"], ebs_nvme_support = "required" }
  }

  expect_failures = [data.aws_ec2_instance_type.host]
}

run "disks_without_lasting_names" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type.host
    values = { memory_size = 4096, default_vcpus = 2, supported_architectures = ["x86_64"], ebs_nvme_support = "unsupported" }
  }

  expect_failures = [data.aws_ec2_instance_type.host]
}
