locals {
  digest = sha256(var.name)
  subnet = coalesce(var.subnet, format(
    "10.%d.%d.0/24",
    192 + parseint(substr(local.digest, 0, 2), 16) % 32,
    parseint(substr(local.digest, 2, 2), 16),
  ))
  # A fixed place for each host keeps its address, which PostgreSQL's access list names.
  hosts = {
    for index, name in keys(var.hosts) : name => {
      groups   = var.hosts[name].groups
      address  = cidrhost(local.subnet, 10 + index)
      ssh_port = var.ssh_port + index
      ports = concat(
        [{ internal = 22, external = var.ssh_port + index, ip = "127.0.0.1" }],
        contains(var.hosts[name].groups, "nginx") ? [{ internal = 443, external = var.https_port, ip = var.listen_address }] : [],
      )
    }
  }
  labels    = { "longrun.environment" = var.name }
  data_path = "/srv/longrun"

  # What the engine reports in words of its own (see ignore_changes below). The label made of it replaces a host whose
  # settings here are not the ones it was made with.
  settings = {
    data_path = local.data_path
    # Older podmans can't change a running host's memory.
    memory_mb = var.memory_mb
    runtime   = "runc"
    # systemd's own word for "halt"; it then stops its services in order.
    stop_signal = "SIGRTMIN+3"
    # What systemd as PID 1 needs (mounts, its own firewall), and no more: never privileged.
    capabilities = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
    # An engine without CAP_SYS_RESOURCE can't give more than it has itself.
    ulimits = { nofile = 20000, nproc = 1000 }
  }
  host_labels = merge(local.labels, { "longrun.settings" = substr(sha256(jsonencode(local.settings)), 0, 12) })
}

resource "docker_network" "this" {
  name = "longrun-${var.name}"

  # Left to the engine, the range comes back as a change in every plan.
  ipam_config {
    subnet  = local.subnet
    gateway = cidrhost(local.subnet, 1)
  }

  dynamic "labels" {
    for_each = local.labels
    content {
      label = labels.key
      value = labels.value
    }
  }

  lifecycle {
    # podman reports its own allocator here, which nobody set.
    ignore_changes = [ipam_options]
  }
}

resource "docker_volume" "data" {
  for_each = local.hosts

  name = "longrun-${var.name}-${each.key}-data"

  dynamic "labels" {
    for_each = local.labels
    content {
      label = labels.key
      value = labels.value
    }
  }

  lifecycle {
    # The history of every run lives here, and nothing can bring it back; `make destroy` lifts this in a copy of its own.
    prevent_destroy = true
  }
}

resource "docker_container" "host" {
  for_each = local.hosts

  name     = "longrun-${var.name}-${each.key}"
  hostname = each.key
  image    = var.host_image
  command  = ["/sbin/init"]
  runtime  = local.settings.runtime
  memory   = local.settings.memory_mb
  restart  = "unless-stopped"
  # `make down` stops the host on purpose: Terraform leaves it as it finds it, and does not make another.
  must_run              = false
  start                 = true
  stop_signal           = local.settings.stop_signal
  stop_timeout          = 60
  destroy_grace_seconds = 60

  capabilities {
    add = local.settings.capabilities
  }
  security_opts = ["seccomp=unconfined"]

  dynamic "ulimit" {
    for_each = local.settings.ulimits
    content {
      name = ulimit.key
      soft = ulimit.value
      hard = ulimit.value
    }
  }

  networks_advanced {
    name         = docker_network.this.name
    ipv4_address = each.value.address
  }

  dynamic "ports" {
    for_each = each.value.ports
    content {
      internal = ports.value.internal
      external = ports.value.external
      ip       = ports.value.ip
    }
  }

  mounts {
    type   = "volume"
    target = local.settings.data_path
    source = docker_volume.data[each.key].name
  }

  upload {
    file    = "/etc/ssh/authorized_keys/longrun"
    content = "${var.ssh_public_key}\n"
  }

  dynamic "labels" {
    for_each = local.host_labels
    content {
      label = labels.key
      value = labels.value
    }
  }

  lifecycle {
    # podman answers with other words than it was asked with ("oci" for runc, 37 for SIGRTMIN+3, RLIMIT_NOFILE for nofile,
    # no mounts): compared, they would replace the host on every run.
    ignore_changes = [capabilities, memory, memory_swap, mounts, runtime, stop_signal, ulimit]
    # A host can't be moved to another network while it runs, and older podmans remove a network under it.
    replace_triggered_by = [docker_network.this.id]
  }
}
