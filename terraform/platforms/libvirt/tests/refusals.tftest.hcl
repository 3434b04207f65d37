# Every value that Terraform refuses before it makes anything: one run for each rule. A test in tests/unit/terraform sees to it
# that each validation has one.
mock_provider "libvirt" {}

variables {
  platform       = "libvirt"
  name           = "unit"
  host_image     = "tests/image.qcow2"
  ssh_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVhc3k longrun-unit"
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

run "unknown_domain_type" {
  command = plan

  variables {
    libvirt_domain_type = "xen"
  }

  expect_failures = [var.libvirt_domain_type]
}

run "relative_directory" {
  command = plan

  variables {
    libvirt_directory = "longrun"
  }

  expect_failures = [var.libvirt_directory]
}

run "directory_with_a_space" {
  command = plan

  variables {
    libvirt_directory = "/srv/virtual machines"
  }

  expect_failures = [var.libvirt_directory]
}

run "directory_with_a_slash_at_the_end" {
  command = plan

  variables {
    libvirt_directory = "/srv/longrun/"
  }

  expect_failures = [var.libvirt_directory]
}

run "small_root_disk" {
  command = plan

  variables {
    libvirt_root_size_gb = 4
  }

  expect_failures = [var.libvirt_root_size_gb]
}

run "unknown_network_mode" {
  command = plan

  variables {
    libvirt_network_mode = "bridge"
  }

  expect_failures = [var.libvirt_network_mode]
}
