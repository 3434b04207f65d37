# What is planned, without an engine: the provider is a mock.
mock_provider "docker" {}

variables {
  platform       = "container"
  name           = "unit"
  host_image     = "localhost/longrun-host:13-test"
  ssh_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVhc3k longrun-unit"
}

run "one_host_carries_everything" {
  command = plan

  assert {
    condition     = keys(docker_container.host) == ["server"] && keys(docker_volume.data) == ["server"]
    error_message = "The default is one host, called server, with one data volume."
  }
  assert {
    condition     = docker_container.host["server"].name == "longrun-unit-server" && docker_volume.data["server"].name == "longrun-unit-server-data" && docker_network.this.name == "longrun-unit"
    error_message = "Everything must bear the environment's name, or two environments meet."
  }
  assert {
    condition     = output.public_url == "https://localhost:8443"
    error_message = "Clients are told another address than the one that is listened on."
  }
  assert {
    condition     = output.hosts["server"].groups == tolist(["minio", "mlflow", "nginx", "postgresql"]) && output.hosts["server"].data_path == "/srv/longrun"
    error_message = "The one host carries all groups, its data at /srv/longrun."
  }
  assert {
    condition     = output.hosts["server"].address == "127.0.0.1" && output.hosts["server"].port == 8422 && output.hosts["server"].user == "longrun"
    error_message = "Ansible reaches the host on this machine's loopback, as longrun."
  }
}

run "nothing_but_https_and_ssh_is_reachable" {
  command = plan

  assert {
    condition     = sort([for port in docker_container.host["server"].ports : "${port.ip}:${port.external}->${port.internal}"]) == tolist(["127.0.0.1:8422->22", "127.0.0.1:8443->443"])
    error_message = "PostgreSQL, MinIO and MLflow must not appear on this machine, and nothing on the network unless it is asked for."
  }
}

run "the_host_is_not_privileged" {
  command = plan

  assert {
    condition     = docker_container.host["server"].privileged != true
    error_message = "A privileged container is root on this machine."
  }
  assert {
    condition     = toset(flatten([for entry in docker_container.host["server"].capabilities : entry.add])) == toset(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"])
    error_message = "systemd needs these two capabilities and no other."
  }
  assert {
    condition     = docker_container.host["server"].must_run == false && docker_container.host["server"].restart == "unless-stopped"
    error_message = "A host that make down stopped must neither come back by itself nor be replaced by the next apply."
  }
}

run "the_data_is_on_the_volume" {
  command = plan

  assert {
    condition     = [for mount in docker_container.host["server"].mounts : "${mount.type} ${mount.source} ${mount.target}"] == ["volume longrun-unit-server-data /srv/longrun"]
    error_message = "Without the volume, replacing the host would delete the history."
  }
}

run "two_hosts_share_the_work" {
  command = plan

  variables {
    hosts = {
      web  = { groups = ["mlflow", "nginx"] }
      data = { groups = ["postgresql", "minio"] }
    }
    listen_address = "0.0.0.0"
    subnet         = "10.200.7.0/24"
  }

  assert {
    condition     = { for name, host in output.hosts : name => "${host.port} ${host.private_address}" } == { data = "8422 10.200.7.10", web = "8423 10.200.7.11" }
    error_message = "Each host needs an ssh port and a private address of its own."
  }
  assert {
    condition     = [for port in docker_container.host["data"].ports : port.internal] == [22]
    error_message = "The host with the data must not be reachable but by ssh."
  }
  assert {
    condition     = contains([for port in docker_container.host["web"].ports : "${port.ip}:${port.external}->${port.internal}"], "0.0.0.0:8443->443")
    error_message = "The host with nginx is the one that clients reach, on the address that was asked for."
  }
  assert {
    condition     = length(docker_volume.data) == 2
    error_message = "Each host needs a data volume of its own."
  }
}

run "the_usual_port_is_not_said" {
  command = plan

  variables {
    https_port  = 443
    server_name = "mlflow.example.org"
  }

  assert {
    condition     = output.public_url == "https://mlflow.example.org"
    error_message = "An address with :443 is another origin for a browser than the same without."
  }
}

run "a_name_of_ones_own_wins" {
  command = plan

  variables {
    server_name = "mlflow.example.org"
    host_image  = "registry.example.org/debian:13"
    memory_mb   = 8192
  }

  assert {
    condition     = output.public_url == "https://mlflow.example.org:8443"
    error_message = "Clients are told the name for which the certificate is made, and the port that is listened on."
  }
  assert {
    condition     = output.hosts["server"].address == "127.0.0.1"
    error_message = "The name may lead to another machine: Ansible takes this one's loopback."
  }
  assert {
    condition     = docker_container.host["server"].image == "registry.example.org/debian:13" && docker_container.host["server"].memory == 8192
    error_message = "The image and the memory are those that were asked for."
  }
}

run "everything_says_whose_it_is" {
  command = plan

  assert {
    condition     = alltrue([for labels in [docker_container.host["server"].labels, docker_volume.data["server"].labels, docker_network.this.labels] : contains([for entry in labels : "${entry.label}=${entry.value}"], "longrun.environment=unit")])
    error_message = "By this label make down finds the hosts, and make destroy what is left."
  }
  assert {
    condition     = length([for entry in docker_container.host["server"].labels : entry if entry.label == "longrun.settings" && length(entry.value) == 12]) == 1
    error_message = "Without this label, a host that was made with other settings would not be replaced."
  }
}

run "the_network_is_drawn_from_the_name" {
  command = plan

  assert {
    condition     = one(docker_network.this.ipam_config).subnet == "10.216.92.0/24"
    error_message = "The network must lie in 10.192.0.0/11, where few others are, and stay the same for a name."
  }
  assert {
    condition     = cidrhost(one(docker_network.this.ipam_config).subnet, 1) == one(docker_network.this.ipam_config).gateway
    error_message = "An engine that chooses the gateway itself reports a change on every plan."
  }
}

run "another_name_is_another_network" {
  command = plan

  variables {
    name = "other"
  }

  assert {
    condition     = one(docker_network.this.ipam_config).subnet == "10.217.41.0/24"
    error_message = "Two environments on one machine must keep apart."
  }
}
